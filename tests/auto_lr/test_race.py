"""Races: how long they may be, which rates are tried, which one wins, and the whole of one on a model made by hand."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.auto_lr.race import RaceConfig, between, factor_at, next_candidate, pace_of, run_race, winner
from aios.auto_lr.search import Found, cost_in_steps

CONFIG = RaceConfig()
rates = st.floats(-8, 2).map(lambda exponent: 10**exponent)


# --- how long ---


@given(st.integers(-100, 10**6))
@settings(deadline=None)
def test_all_of_a_race_fits_into_its_budget(budget: int) -> None:
    pace = pace_of(budget, CONFIG)
    if pace is None:
        return
    judging = cost_in_steps(0, CONFIG.judges)
    assert judging + pace.candidates * (pace.steps + judging) <= budget
    assert CONFIG.least_steps <= pace.steps <= CONFIG.most_steps
    assert 3 <= pace.candidates <= CONFIG.rounds


@given(st.integers(0, 5000))
@settings(deadline=None)
def test_a_larger_budget_never_buys_less(budget: int) -> None:
    pace, more = pace_of(budget, CONFIG), pace_of(budget + 1, CONFIG)
    if pace is not None:
        assert more is not None
        assert more.steps * more.candidates >= pace.steps * 3
    least = cost_in_steps(0, CONFIG.judges) + 3 * (CONFIG.least_steps + cost_in_steps(0, CONFIG.judges))
    assert (pace is None) == (budget < least)


@given(st.integers(1, 300), st.floats(0, 0.5), st.floats(0.1, 0.5))
@settings(deadline=None)
def test_a_short_run_is_a_whole_schedule(steps: int, warmup: float, decay: float) -> None:
    factors = [factor_at(step, steps, warmup, decay) for step in range(steps)]
    top = factors.index(max(factors))
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert factors[-1] <= 1 / max(1.0, decay * steps) + 1e-9
    if warmup == 0:
        assert factors[0] == max(factors)
    if steps >= 10:
        assert max(factors) > 0.9


# --- which rates ---


def tried(loss_at: dict[int, float] | None, middle: float, best: int = 0) -> list[float]:
    """The rates that would be tried in turn, where the loss is lowest `best` factors from the middle."""
    losses: dict[float, float] = {}
    while len(losses) < 50 and (lr := next_candidate(losses, middle, CONFIG)) is not None:
        assert lr not in losses
        place = round(math.log(lr / middle, CONFIG.factor))
        losses[lr] = loss_at[place] if loss_at is not None else abs(place - best)
    return list(losses)


@given(rates, st.integers(-10, 10))
@settings(deadline=None)
def test_candidates_go_on_until_the_best_lies_between_others(middle: float, best: int) -> None:
    found = tried(None, middle, best)
    places = sorted(round(math.log(lr / middle, CONFIG.factor)) for lr in found)
    assert places == list(range(min(0, best - 1), max(1, best + 1) + 1))
    assert found[:2] == [middle, middle * CONFIG.factor]
    assert all(lr == pytest.approx(middle * CONFIG.factor**p) for lr, p in zip(sorted(found), places, strict=True))


@given(st.dictionaries(rates, st.one_of(st.floats(), st.just(math.inf)), min_size=1))
@settings(deadline=None)
def test_the_winner_has_the_lowest_loss_and_none_that_broke_wins(losses: dict[float, float]) -> None:
    best, finite = winner(losses), [loss for loss in losses.values() if math.isfinite(loss)]
    if finite:
        assert losses[best] == min(finite)
    else:
        assert best == min(losses)


@given(rates, st.lists(st.one_of(st.floats(0, 10), st.just(math.inf)), min_size=1, max_size=6))
@settings(deadline=None)
def test_what_is_taken_lies_at_most_half_way_to_a_neighbour(middle: float, seen: list[float]) -> None:
    losses = {middle * CONFIG.factor**i: loss for i, loss in enumerate(seen)}
    best, taken = winner(losses), between(losses)
    half = math.sqrt(CONFIG.factor) * (1 + 1e-9)
    assert best / half <= taken <= best * half
    if best in (min(losses), max(losses)):
        assert taken == best


@given(rates, st.floats(-0.45, 0.45), st.floats(0.01, 10), st.floats(-100, 100))
@settings(deadline=None)
def test_the_bottom_of_a_parabola_is_hit(middle: float, shift: float, curvature: float, level: float) -> None:
    losses = {middle * CONFIG.factor**i: level + curvature * (i - shift) ** 2 for i in (-1, 0, 1)}
    assert between(losses) == pytest.approx(middle * CONFIG.factor**shift, rel=1e-3)


# --- a whole race ---


class Bowl:
    """Two weights of one loss, steep and shallow, under plain gradient steps with noise; counts its work."""

    def __init__(
        self,
        steep: float = 1.0,
        at_the_bottom: bool = False,
        breaks_at: int | None = None,
        bad: frozenset[int] = frozenset(),
    ) -> None:
        self.curvatures = (steep, 0.05 * steep)
        self.start = (0.0, 0.0) if at_the_bottom else (3.0, 3.0)
        self.weights = self.start
        self.breaks_at, self.bad = breaks_at, bad
        self.trained: list[tuple[int, float]] = []
        self.judged: list[int] = []
        self.restored = 0

    def loss(self) -> float:
        return sum(0.5 * c * w * w for c, w in zip(self.curvatures, self.weights, strict=True))

    def evaluate(self, batch: int) -> float:
        """The loss of now."""
        self.judged.append(batch)
        return math.nan if batch in self.bad else self.loss()

    def train(self, batch: int, lr: float) -> float:
        """One step down; the noise depends on the batch alone."""
        if len(self.trained) == self.breaks_at:
            raise OSError("the data are gone")
        self.trained.append((batch, lr))
        if batch in self.bad:
            return math.nan  # such an update is left out
        loss, noise = self.loss(), random.Random(batch)
        pairs = zip(self.curvatures, self.weights, strict=True)
        self.weights = tuple(w - lr * (c * w + 0.01 * noise.gauss(0, c)) for c, w in pairs)
        return loss if loss < 1e6 else math.nan

    def restore(self) -> None:
        """Back to the start."""
        self.weights, self.restored = self.start, self.restored + 1


def race(bowl: Bowl, middle: float, budget: int = 100, first_batch: int = 7) -> Found | None:
    return run_race(bowl, bowl.restore, first_batch, budget, middle, CONFIG)


@given(st.floats(-4, 4).map(lambda e: 10**e), st.floats(0.3, 4))
@settings(deadline=None)
def test_the_rate_found_is_near_the_best_whatever_the_steepness_and_the_first_guess(steep: float, guess: float) -> None:
    bowl = Bowl(steep)
    found = race(bowl, guess / steep, budget=400)
    assert found is not None
    assert found.lr is not None
    assert 0.3 < found.lr * steep < 3  # above 2 it diverges, but for the decay; the shallow weight wants what it gets
    assert found.edge is None
    assert "ended lowest" in found.reason


@given(st.integers(0, 1000), st.floats(0.01, 100), st.integers(0, 100))
@settings(deadline=None)
def test_a_race_is_fair_counts_its_work_and_takes_all_back(budget: int, middle: float, first_batch: int) -> None:
    bowl = Bowl()
    found = race(bowl, middle, budget, first_batch)
    assert bowl.weights == bowl.start
    if found is None:
        assert pace_of(budget, CONFIG) is None
        assert bowl.trained == bowl.judged == []
        return
    assert found.steps <= budget
    assert found.steps >= cost_in_steps(len(bowl.trained), len(bowl.judged))
    assert bowl.restored == len(found.rates) + 1  # and after the look at the untouched weights
    assert found.rates == tuple(sorted(set(found.rates)))
    # All see the same batches, from the first one on, and are judged on others.
    runs = Counter(batch for batch, _ in bowl.trained)
    assert runs[first_batch] == len(found.rates)
    assert not set(runs) & set(bowl.judged)
    assert all(count >= 1 for count in Counter(bowl.judged).values())
    assert min(runs) == first_batch


def test_where_no_rate_helps_the_lowest_is_taken_and_the_reason_says_so() -> None:
    found = race(Bowl(at_the_bottom=True), 1.0)
    assert found is not None
    assert found.lr == min(found.rates)
    assert "none of them did better than the untouched weights" in found.reason


def test_a_rate_that_breaks_loses_and_is_logged_as_such() -> None:
    found = race(Bowl(steep=1000.0), 0.0015, budget=400)
    assert found is not None
    assert found.losses[-1] == math.inf
    assert found.lr is not None
    assert found.lr < found.rates[-1]
    assert found.to_dict()["curve"][-1] == [found.rates[-1], None]
    again = Found.from_dict(found.to_dict())
    assert (again.lr, again.rates, again.steps) == (found.lr, found.rates, found.steps)


@given(st.sets(st.integers(7, 60), max_size=12))
@settings(deadline=None)
def test_bad_batches_do_not_decide_a_race(bad: set[int]) -> None:
    apart = frozenset(batch for batch in bad if batch - 1 not in bad)  # two in a row are taken for the rate's doing
    clean, found = race(Bowl(), 0.5), race(Bowl(bad=apart), 0.5)
    assert clean is not None
    assert clean.lr is not None
    assert found is not None
    if found.lr is None:
        assert "not finite" in found.reason
    else:
        assert clean.lr / CONFIG.factor < found.lr < clean.lr * CONFIG.factor
        assert "did better" not in found.reason


def test_a_loss_that_is_never_finite_is_named() -> None:
    bowl = Bowl(bad=frozenset(range(1000)))
    found = race(bowl, 0.5)
    assert found is not None
    assert found.lr is None
    assert "the loss of the untouched weights is not finite" in found.reason
    assert bowl.restored == 1


@pytest.mark.parametrize("breaks_at", [0, 5, 30])
def test_an_error_surfaces_after_everything_is_taken_back(breaks_at: int) -> None:
    bowl = Bowl(breaks_at=breaks_at)
    with pytest.raises(OSError, match="the data are gone"):
        race(bowl, 0.5)
    assert bowl.weights == bowl.start
    assert bowl.restored >= 1
