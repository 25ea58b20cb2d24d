"""That nothing is learned is told, early and once; of a run that learns nothing is."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.auto_lr.stalled import Stalled, StalledWatch

ENTROPY, BEGAN = 5.75, 7.6
Said = list[tuple[int, Stalled]]


def told(losses: Iterable[float], steps: int = 1000, warmup: int = 50, entropy: float = ENTROPY) -> Said:
    """(step, what is said) of a run with these losses from step 1 on."""
    watch = StalledWatch(entropy, steps)
    said = [(step, watch.observe(step, loss, settled=step > warmup)) for step, loss in enumerate(losses, start=1)]
    return [(step, stalled) for step, stalled in said if stalled is not None]


def noisy(level: float, count: int, noise: float = 0.2, seed: int = 0) -> list[float]:
    chance = random.Random(seed)
    return [level + chance.gauss(0.0, noise) for _ in range(count)]


@pytest.mark.parametrize(
    ("level", "cause"), [(BEGAN, "too_low"), (BEGAN + 2.0, "too_high"), (ENTROPY + 0.1, "stuck"), (math.nan, "broken")]
)
@pytest.mark.parametrize("steps", [300, 1000, 20_000])
def test_a_loss_that_stands_still_is_told_within_a_few_windows(level: float, cause: str, steps: int) -> None:
    losses = [*noisy(BEGAN, 50), *([math.nan] * 600 if math.isnan(level) else noisy(level, 600))]
    ((step, stalled),) = told(losses, steps)
    assert stalled.cause == cause
    assert step <= 50 + 6 * 50
    assert 0 < stalled.since < step


@given(st.integers(200, 3000), st.floats(0.0, 0.3), st.floats(0.05, 0.5), st.floats(0.3, 3.0), st.integers(0, 10**6))
def test_a_run_that_learns_is_never_told_of(steps: int, noise: float, within: float, below: float, seed: int) -> None:
    pace = within * steps / 3  # the loss falls exponentially, by 95 % `within` this part of the run
    fall = BEGAN - (ENTROPY - below)
    losses = [
        BEGAN - fall * (1 - math.exp(-step / pace)) + extra
        for step, extra in enumerate(noisy(0.0, steps, noise, seed), start=1)
    ]
    assert told(losses, steps, warmup=steps // 10) == []


@given(st.lists(st.floats(0, 20) | st.just(math.nan), max_size=400), st.integers(1, 2000), st.floats(-1, 20))
def test_whatever_the_losses_it_is_told_once(losses: list[float], steps: int, entropy: float) -> None:
    said = told(losses, steps, warmup=5, entropy=entropy)
    assert len(said) <= 1
    assert all(stalled.since <= step and stalled.reference > 0 for step, stalled in said)


@pytest.mark.parametrize(("steps", "causes"), [(400, ["too_low"]), (20_000, [])])
def test_a_slow_fall_is_too_slow_only_for_a_short_run(steps: int, causes: list[str]) -> None:
    slow = [6.9 - 0.001 * step + extra for step, extra in enumerate(noisy(0.0, 400, 0.05))]
    assert [stalled.cause for _, stalled in told([BEGAN, *slow], steps)] == causes


def test_after_a_resume_a_loss_at_rest_is_not_taken_for_one_that_never_fell() -> None:
    watch = StalledWatch(ENTROPY, 1000)
    said = [watch.observe(300 + i, loss, settled=True) for i, loss in enumerate(noisy(ENTROPY + 0.1, 400))]
    assert [stalled.cause for stalled in said if stalled is not None] == ["stuck"]


def test_nothing_is_told_of_a_brain_that_had_learned_before() -> None:
    assert told(noisy(3.0, 600)) == []


def test_warm_up_and_anneal_are_not_looked_at() -> None:
    watch = StalledWatch(ENTROPY, 1000)
    assert all(watch.observe(step, BEGAN, settled=False) is None for step in range(1, 1000))
