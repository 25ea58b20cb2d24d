"""`--sample-every`: what the model says on its way is in log and terminal, and training goes on as without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from training_process import read_log, train

SOME_STEPS = ("--steps=6", "--eval-every=4", "--save-every=0", "--lr=3e-3")


def trained(folder: Path) -> list[dict[str, Any]]:
    """What the `train` records say, but for time."""
    timed = ("ts", "step_time_s", "tokens_per_sec")
    return [{k: v for k, v in record.items() if k not in timed} for record in read_log(folder / "brain", "train")]


def state(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "brain/checkpoints/step-6/state.pt", weights_only=True)
    return loaded


def test_samples_are_told_and_training_does_not_notice(tmp_path: Path) -> None:
    plain, sampled = tmp_path / "plain", tmp_path / "sampled"
    train(plain, *SOME_STEPS)
    said = train(sampled, *SOME_STEPS, "--sample-every=2").stdout
    assert trained(plain) == trained(sampled)
    assert state(plain)["rng"]["torch"].equal(state(sampled)["rng"]["torch"])
    samples = read_log(sampled / "brain", "sample")
    assert [s["step"] for s in samples] == [2, 4, 6]
    assert len({s["prompt"] for s in samples}) == 1
    assert all(s["prompt"] and s["text"] for s in samples)
    assert said.count("The model goes on from “") == 3
    assert not read_log(plain / "brain", "sample")


@pytest.mark.slow
@pytest.mark.parametrize("how", [("--ddp",), ("--parallel-independent", "--merge-every=3")], ids=lambda how: how[0])
def test_one_of_several_workers_speaks(tmp_path: Path, how: tuple[str, ...]) -> None:
    plain, sampled = tmp_path / "plain", tmp_path / "sampled"
    train(plain, *SOME_STEPS, *how, "--world-size=2")
    train(sampled, *SOME_STEPS, *how, "--world-size=2", "--sample-every=2")
    samples = read_log(sampled / "brain", "sample")
    assert [(s["step"], s.get("rank", 0)) for s in samples] == [(2, 0), (4, 0), (6, 0)]
    in_order = [sorted(trained(folder), key=lambda r: (r.get("rank", 0), r["step"])) for folder in (plain, sampled)]
    assert in_order[0] == in_order[1]
