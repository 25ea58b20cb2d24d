"""Choices of the model and its training, and the average of the weights, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aios.engines.weight_average import AVERAGE_FILE
from training_process import run_aios, train, train_args, train_records, train_straight_and_killed

LIGHT = ("--h-layers=1", "--l-layers=1", "--lr=2e-3", "--eval-every=0")
CHOICES = (
    *("--update-per-segment", "--eval-segments=3", "--no-halting", "--last-cycle-gradient"),
    *("--shared-stack", "--corrected-init", "--ema=0.9"),
)


def test_all_choices_are_trained_saved_published_and_resumed_bit_for_bit(tmp_path: Path) -> None:
    straight, resumed = train_straight_and_killed(tmp_path, *LIGHT, *CHOICES, "--steps=24", "--save-every=8", at=12)
    one, other = train_records(straight), train_records(resumed)
    for key in ("loss", "lr", "grad_norm"):
        assert [other[step][key] for step in one] == [record[key] for record in one.values()]
    last = straight / "checkpoints" / "step-24"
    for name in ("model.safetensors", AVERAGE_FILE):
        again = resumed / "checkpoints" / "step-24" / name
        assert (last / name).read_bytes() == again.read_bytes()
    config = json.loads((straight / "config.json").read_text(encoding="utf-8"))
    assert config["eval_segments"] == 3
    assert config["shared_stack"]
    assert not config["halting"]
    published, kept = load_file(straight / "model.safetensors"), load_file(last / AVERAGE_FILE)
    assert not (straight / AVERAGE_FILE).exists(), "only a resume needs it"
    weight = "lm_head.weight"
    assert torch.equal(published[weight], kept[f"averaged.{weight}"])
    assert not torch.equal(published[weight], kept[f"trained.{weight}"])
    assert kept["updates"].item() == 24


@pytest.mark.slow
def test_an_average_begins_and_ends_on_resume(tmp_path: Path) -> None:
    def train_to(steps: int, *flags: str) -> Path:
        train(tmp_path, *LIGHT, "--halt-max-steps=1", f"--steps={steps}", *flags)
        return tmp_path / "brain" / "checkpoints" / f"step-{steps}"

    train_to(4)
    begun = train_to(8, "--resume", "--ema=0.9")
    assert load_file(begun / AVERAGE_FILE)["updates"].item() == 4
    ended = train_to(12, "--resume", "--ema=0")
    assert not (ended / AVERAGE_FILE).exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--ema=1",), "--ema is 1.0"),
        (("--ema=0.9", "--zero-stage=zero1"), "--ema does not go with --zero-stage"),
        (("--update-per-segment", "--gradient-accumulation-steps=2"), "--update-per-segment does not go with"),
        (("--shared-stack", "--h-layers=2", "--l-layers=1"), "make them equal"),
        (("--eval-segments=0",), "--eval-segments is 0"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_one_sentence(tmp_path: Path, flags: tuple[str, ...], words: str) -> None:
    done = run_aios(*train_args(tmp_path, *flags))
    assert done.returncode == 2
    assert words in done.stderr
    assert not (tmp_path / "brain").exists()
