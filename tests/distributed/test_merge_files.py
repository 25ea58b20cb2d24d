"""What workers hand in: there completely or not at all, merged by what they say they trained on."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aios.distributed.merge_files import Report, find_contribution, hand_in, merge, round_folder
from aios.errors import UserError


def hand_in_weights(folder: Path, rank: int, weights: list[float], samples: int = 1) -> None:
    report = Report(rank=rank, step=10 + rank, samples=samples, done=False, loss=1.5, lr=1e-3)
    tensors = {"w": torch.tensor(weights), "seen": torch.tensor([rank])}
    hand_in(folder, report, {"step": 10 + rank}, lambda partial: save_file(tensors, partial / "model.safetensors"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = round_folder(tmp_path, 3)
    made.mkdir()
    return made


def test_what_was_handed_in_is_found_again(folder: Path) -> None:
    assert find_contribution(folder, 1) is None
    hand_in_weights(folder, 1, [1.0, 2.0], samples=7)
    found = find_contribution(folder, 1)
    assert found is not None
    assert (found.report.step, found.report.samples, found.report.eval_loss) == (11, 7, None)
    assert found.load_state() == {"step": 11}
    assert find_contribution(folder, 0) is None


def test_a_worker_that_dies_while_handing_in_leaves_nothing_to_be_found(folder: Path) -> None:
    def die(partial: Path) -> None:
        (partial / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    report = Report(rank=0, step=10, samples=1, done=False, loss=1.0)
    with pytest.raises(KeyboardInterrupt):
        hand_in(folder, report, {}, die)
    assert find_contribution(folder, 0) is None
    hand_in_weights(folder, 0, [1.0])  # the next try is not in the way of the first
    assert find_contribution(folder, 0) is not None


def test_a_worker_of_a_sitting_that_is_over_cannot_hand_in(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hand_in_weights(tmp_path / "gone", 0, [1.0])


def test_merge_is_weighted_by_samples_and_leaves_out_what_is_not_finite(folder: Path) -> None:
    hand_in_weights(folder, 0, [0.0, 0.0], samples=1)
    hand_in_weights(folder, 1, [4.0, 8.0], samples=3)
    hand_in_weights(folder, 2, [math.nan, 8.0], samples=100)
    found = [find_contribution(folder, rank) for rank in range(3)]
    weights, shares = merge([c for c in found if c is not None])
    assert shares == [0.25, 0.75, 0.0]
    assert weights["w"].tolist() == [3.0, 6.0]
    assert weights["seen"].tolist() == [0]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"seen": torch.tensor([1])}, "lacks w;"),
        ({"w": torch.zeros(2), "seen": torch.tensor([1]), "x": torch.zeros(1)}, "has besides x;"),
        ({"w": torch.zeros(3), "seen": torch.tensor([1])}, "w (3 instead of 2)"),
        ({"w": torch.zeros(2), "seen": torch.tensor([1.0])}, "seen (float32 instead of int64)"),
    ],
)
def test_workers_that_hand_in_other_tensors_are_not_merged(
    folder: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    hand_in_weights(folder, 0, [0.0, 0.0])
    report = Report(rank=1, step=10, samples=1, done=False, loss=1.0)
    hand_in(folder, report, {}, lambda partial: save_file(tensors, partial / "model.safetensors"))
    found = [find_contribution(folder, rank) for rank in range(2)]
    with pytest.raises(UserError) as refused:
        merge([c for c in found if c is not None])
    assert words in str(refused.value)
    assert str(folder / "rank-1" / "model.safetensors") in str(refused.value)
