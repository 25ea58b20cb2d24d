"""ZeRO 1 to 3 with two real workers on the CPU, step by step beside the same training in plain torch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from zero_worker import run_workers

STAGES = [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]


class Trained(NamedTuple):
    """A finished training of two workers."""

    stage: int
    seen: list[dict[str, Any]]
    checkpoint: Path


@pytest.fixture(scope="module", params=STAGES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp(f"zero{request.param}")
    seen = run_workers(2, folder / "out", "train_and_save", request.param, folder / "checkpoint")
    return Trained(request.param, seen, folder / "checkpoint")


def test_the_weights_are_those_of_plain_torch_with_the_same_learning_rates(trained: Trained) -> None:
    for seen in trained.seen:
        assert seen["moved"]
        assert seen["norms"] == pytest.approx(seen["plain_norms"], rel=1e-4)
        assert seen["distance"] < 1e-5  # the largest of the rates, 8e-3, moves a weight by about as much


def test_all_workers_see_the_same_numbers(trained: Trained) -> None:
    first, second = trained.seen
    assert first["losses"] == second["losses"]
    assert first["norms"] == second["norms"]


def test_a_gradient_above_the_limit_changes_nothing(trained: Trained) -> None:
    for seen in trained.seen:
        assert seen["norm_when_skipped"] > 0
        assert seen["skip_exact"]


def test_a_nan_on_one_worker_is_skipped_by_all(trained: Trained) -> None:
    for seen in trained.seen:
        loss, norm = seen["poisoned"]
        assert math.isnan(loss)
        assert not math.isfinite(norm)
        assert seen["poison_exact"]


def test_a_snapshot_brings_everything_back_bit_for_bit(trained: Trained) -> None:
    for seen in trained.seen:
        assert seen["moved_on"]
        assert seen["restore_exact"]
        assert seen["repeat_exact"]
        first, second = seen["after"]
        assert first == second


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_any_number_of_workers_goes_on_from_it(trained: Trained, tmp_path: Path, count: int) -> None:
    for seen in run_workers(count, tmp_path, "resume", trained.stage, trained.checkpoint):
        assert seen["client_state"] == {"current_lr": 0.125}
        assert seen["distance"] < 1e-5
        assert seen["moments"] == pytest.approx(seen["plain_moments"], rel=1e-4)
        assert seen["distance_after"] < 2e-5
