"""`--model-dtype fp16` from the first scale, far too high, through overflows to a model that learns."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training_process import read_log, train, train_records

FIRST_SCALE = 65536.0  # torch's
RUNS = pytest.mark.parametrize(
    "workers", [[], pytest.param(["--ddp", "--world-size=2"], marks=pytest.mark.slow)], ids=["alone", "two-ranks"]
)


@pytest.fixture(scope="module")
def steep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain with so large an output layer that gradients overflow at the first scales."""
    folder = tmp_path_factory.mktemp("steep")
    train(folder, "--steps=2", "--lr=1e-3")
    path = folder / "brain" / "model.safetensors"
    weights = load_file(path)
    weights["lm_head.weight"] *= 100
    save_file(weights, path, metadata={"format": "pt"})
    return folder / "brain"


@RUNS
def test_overflows_lower_the_scale_and_leave_a_model_that_learns(
    steep: Path, tmp_path: Path, workers: list[str]
) -> None:
    train(tmp_path, "--model-dtype=fp16", "--steps=30", "--lr=3e-3", f"--student-init={steep}", *workers)

    records = read_log(tmp_path / "brain", "train")
    overflows = [r["step"] for r in records if r["grad_norm"] is None]
    assert overflows[:2] == [1, 2]
    assert len(overflows) < 10
    assert records[-1]["ce"] < 0.8 * records[0]["ce"]
    weights = load_file(tmp_path / "brain" / "model.safetensors")
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())
    saved = torch.load(tmp_path / "brain" / "checkpoints" / "step-30" / "state.pt", weights_only=True)
    assert saved["scaler"]["scale"] == FIRST_SCALE / 2 ** len(overflows)
    assert saved["scaler"]["_growth_tracker"] == 30 - overflows[-1]


def test_a_run_resumed_among_overflows_ends_as_if_it_had_not_been_interrupted(steep: Path, tmp_path: Path) -> None:
    flags = ("--model-dtype=fp16", "--lr=3e-3", "--save-every=3", "--keep-checkpoints=9", f"--student-init={steep}")
    train(tmp_path / "straight", *flags, "--steps=12")
    resumed = tmp_path / "resumed"
    shutil.copytree(tmp_path / "straight", resumed)
    for step in (6, 9, 12):
        shutil.rmtree(resumed / "brain" / "checkpoints" / f"step-{step}", ignore_errors=True)
    train(resumed, "--resume")

    ends = [train_records(folder / "brain")[12] for folder in (tmp_path / "straight", resumed)]
    assert ends[0]["ce"] == ends[1]["ce"]
    weights = [load_file(folder / "brain" / "model.safetensors") for folder in (tmp_path / "straight", resumed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
