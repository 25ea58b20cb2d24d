"""Decimation: bounded, exact in its extremes, and the same however the values arrive."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.run_view.series import BucketSeries

BUCKETS = 8
points = st.dictionaries(st.integers(0, 500), st.floats(-1e6, 1e6) | st.just(math.nan) | st.just(math.inf), min_size=1)


def filled(steps: list[int], values: list[float], buckets: int = BUCKETS) -> BucketSeries:
    series = BucketSeries(buckets)
    series.add(steps, values)
    return series


@given(points, st.randoms())
def test_buckets_hold_what_a_plain_grouping_holds(values: dict[int, float], shuffler: object) -> None:
    steps = list(values)
    shuffler.shuffle(steps)  # type: ignore[attr-defined]
    series = filled(steps, [values[step] for step in steps])
    drawn = series.series()
    assert len(drawn) <= BUCKETS
    assert series.width * BUCKETS > max(values) >= (series.width // 2) * BUCKETS or series.width == 1
    groups: dict[int, list[int]] = {}
    for step in sorted(values):
        groups.setdefault(step // series.width, []).append(step)
    for at, members in enumerate(groups.values()):
        finite = [values[step] for step in members if math.isfinite(values[step])]
        assert drawn.steps[at] == pytest.approx(np.mean(members))
        assert drawn.non_finite[at] == len(members) - len(finite)
        if finite:
            assert (drawn.low[at], drawn.high[at]) == (min(finite), max(finite))
            assert drawn.mean[at] == pytest.approx(np.mean(finite), abs=1e-6)
        else:
            assert np.isnan([drawn.low[at], drawn.high[at], drawn.mean[at]]).all()


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(-10, 10) | st.just(math.nan)), max_size=60), st.data())
def test_any_split_over_calls_gives_the_same(added: list[tuple[int, float]], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(added)), max_size=6)))
    whole, split = BucketSeries(BUCKETS), BucketSeries(BUCKETS)
    whole.add([step for step, _ in added], [value for _, value in added])
    for first, last in zip([0, *cuts], [*cuts, len(added)], strict=True):
        split.add([step for step, _ in added[first:last]], [value for _, value in added[first:last]])
    for one, other in zip(vars(whole.series()).values(), vars(split.series()).values(), strict=True):
        assert one.tobytes() == other.tobytes()


def test_repeated_step_takes_the_newest_value() -> None:
    drawn = filled([1, 2, 3, 2, 2], [1.0, math.nan, 3.0, 20.0, 21.0]).series()
    assert drawn.mean.tolist() == [1.0, 21.0, 3.0]
    assert drawn.non_finite.tolist() == [0, 0, 0]


def test_million_values_stay_bounded_and_keep_their_spike() -> None:
    values = [1.0] * 1_000_000
    values[654_321] = 99.0
    series = BucketSeries()
    series.add(list(range(1_000_000)), values)
    drawn = series.series()
    assert 1000 < len(drawn) <= 4096
    assert drawn.high.max() == 99.0
    assert drawn.steps[drawn.high.argmax()] == pytest.approx(654_321, abs=series.width)
    assert drawn.thinned(500).high.max() == 99.0


def test_step_far_away_leaves_the_rest_in_place() -> None:
    drawn = filled([1, 2, 2**52], [1.0, 2.0, 3.0]).series()
    assert drawn.mean.tolist() == [1.5, 3.0]


@pytest.mark.parametrize(("step", "left"), [(47, 48), (50, 48), (-1, 0), (500, 64)])
def test_dropping_leaves_nothing_from_beyond(step: int, left: int) -> None:
    series = filled(list(range(64)), [float(s) for s in range(64)], buckets=8)
    assert series.width == 8
    series.drop_after(step)
    drawn = series.series()
    assert len(drawn) == left // 8
    assert not len(drawn) or drawn.high.max() == left - 1


def test_thinning_keeps_bounds_and_counts() -> None:
    series = filled(list(range(100)), [math.nan if s % 10 == 3 else float(s) for s in range(100)], buckets=128).series()
    thin = series.thinned(7)
    assert len(thin) <= 7
    assert (thin.low.min(), thin.high.max()) == (0.0, 99.0)
    assert thin.non_finite.sum() == 10
    assert thin.steps.tolist() == sorted(thin.steps.tolist())
    assert series.thinned(1000) is series
