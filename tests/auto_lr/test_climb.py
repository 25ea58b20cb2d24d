"""The climb as a pure function of what is observed: on landscapes made by hand, on anything, and saved on its way."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aios.auto_lr.climb import Climb, ClimbConfig, divisor, steps_per_decade
from aios.auto_lr.robust_window import scatter
from aios.auto_lr.search import Found

CONFIG = ClimbConfig()
Landscape = Callable[[float], float]
"""The loss by what an update changes."""


def valley(edge: float = 0.1, depth: float = 3.0, start: float = 5.0) -> Landscape:
    """Flat, then falling over about two decades, lowest just below `edge`, and rising steeply above it."""

    def loss(change: float) -> float:
        fall = depth / (1 + (edge / 10 / change) ** 1.5) if change > 0 else 0.0
        return start - fall + max(0.0, 10 * (change / edge - 1))

    return loss


@dataclass
class Trace:
    """What a climb did."""

    climb: Climb
    rates: list[float] = field(default_factory=list)
    """Of the steps after it was known where to begin."""
    kept: list[int] = field(default_factory=list)
    """Indices in `rates` at which the state was worth keeping."""
    steps: int = 0

    @property
    def found(self) -> Found:
        return self.climb.found(0)


def climbed(
    landscape: Landscape,
    strength: float = 1.0,
    *,
    steps: int = 1000,
    noise: float | Landscape = 0.0,
    jitter: float = 0.0,
    seed: int = 0,
    spoil: Iterable[int] = (),
    odd: tuple[int, float] = (0, 1.0),
) -> Trace:
    """Climb to the end; an update at `lr` changes `strength` x lr, give or take, batches in `spoil` give NaN, and the
    loss of the one that `odd` names is so many times what it should be."""
    numbers, spoiled = random.Random(seed), set(spoil)
    noise_at = noise if callable(noise) else lambda change: noise
    trace = Trace(Climb(steps, CONFIG))
    while trace.climb.ended is None:
        begun, lr = trace.climb.unit is not None, trace.climb.next_lr()
        change = strength * lr * math.exp(numbers.gauss(0, jitter))
        loss = landscape(strength * lr) + numbers.gauss(0, noise_at(strength * lr))
        trace.steps += 1
        if begun:
            trace.rates.append(lr)
            loss = math.nan if len(trace.rates) in spoiled else loss
            loss *= odd[1] if len(trace.rates) == odd[0] else 1.0
        if trace.climb.observe(lr, loss, change):
            trace.kept.append(len(trace.rates) - 1)
    return trace


strengths = st.floats(-3, 3).map(lambda exponent: 10**exponent)


# --- where it leads ---


@given(strengths, st.sampled_from([0.03, 0.1, 0.3]))
@settings(deadline=None)
def test_the_rate_found_lies_below_the_edge_where_the_loss_was_low(strength: float, edge: float) -> None:
    trace = climbed(valley(edge), strength)
    lr = trace.found.lr
    assert lr is not None
    assert edge / 15 < strength * lr < edge
    assert "gained nothing" in trace.found.reason


@given(strengths, st.floats(0, 0.05), st.floats(0, 0.3), st.integers(0, 1000))
@settings(deadline=None)
def test_the_strength_of_the_optimizer_does_not_matter(strength: float, noise: float, jitter: float, seed: int) -> None:
    plain, other = climbed(valley()).found, climbed(valley(), strength, noise=noise, jitter=jitter, seed=seed).found
    assert plain.lr is not None
    assert other.lr is not None
    if noise == jitter == 0:
        assert strength * other.lr == pytest.approx(plain.lr, rel=1e-6)
    assert 1 / 3 < strength * other.lr / plain.lr < 3


@pytest.mark.parametrize("seed", range(8))
def test_noise_that_comes_with_what_is_learned_does_not_end_it(seed: int) -> None:
    """An untrained classifier finds all batches alike; one that has begun to learn tells them apart."""
    falling = valley(0.3, depth=0.8, start=2.3)
    trace = climbed(falling, noise=lambda change: 0.01 + 0.3 * (2.3 - min(2.3, falling(change))), seed=seed)
    assert trace.found.lr is not None
    assert 0.3 / 15 < trace.found.lr < 0.3


@given(st.floats(-1e6, 1e6), st.floats(-3, 3).map(lambda exponent: 10**exponent), st.integers(0, 1000))
@settings(deadline=None)
def test_neither_a_constant_nor_the_unit_of_the_loss_matters(constant: float, unit: float, seed: int) -> None:
    plain = climbed(valley(), noise=0.02, seed=seed)
    moved = climbed(lambda change: constant + unit * valley()(change), noise=0.02 * unit, seed=seed)
    assert plain.found.lr is not None
    if abs(constant) < 1e6 * unit:  # else rounding eats the fall
        assert moved.found.lr is not None
        one_step = 10 ** (1 / moved.climb.steps_per_decade)
        assert 1 / one_step**2 < moved.found.lr / plain.found.lr < one_step**2


@given(st.integers(1, 10**5))
@settings(deadline=None)
def test_a_decade_takes_a_part_of_the_run_and_the_whole_at_most_a_third(steps: int) -> None:
    climb, longer = Climb(steps, CONFIG), Climb(steps + 100, CONFIG)
    assert CONFIG.shortest_decade <= climb.steps_per_decade <= longer.steps_per_decade
    assert climb.steps_per_decade <= max(CONFIG.shortest_decade, 0.1 * steps + 1)
    assert 1 <= climb.most_points <= max(1, math.ceil(CONFIG.longest * steps))


@given(st.integers(1000, 10**5), st.integers(2, 16))
@settings(deadline=None)
def test_in_long_runs_the_pace_slows_less_than_the_runs_lengthen(steps: int, longer: int) -> None:
    pace = steps_per_decade(steps, CONFIG)
    assert pace < CONFIG.decade * steps + 1
    assert steps_per_decade(longer * steps, CONFIG) <= math.sqrt(longer) * (pace + 0.5) + 0.5  # both are rounded


@given(st.integers(60, 2000), strengths)
@settings(max_examples=50, deadline=None)
def test_a_loss_that_never_breaks_ends_the_climb_in_its_part_of_the_run(steps: int, strength: float) -> None:
    trace = climbed(lambda change: 5 - math.log10(1 + 1e6 * change), strength, steps=steps)
    assert len(trace.found.rates) <= round(CONFIG.longest * steps)
    assert trace.steps <= len(trace.found.rates) + 12
    assert trace.climb.ended is not None


@given(strengths, st.floats(0, 0.1), st.integers(0, 1000))
@settings(deadline=None)
def test_rates_rise_evenly_from_an_update_that_trains_nothing(strength: float, noise: float, seed: int) -> None:
    trace = climbed(valley(), strength, noise=noise, seed=seed)
    factor = 10 ** (1 / trace.climb.steps_per_decade)
    assert strength * trace.rates[0] == pytest.approx(CONFIG.first_change)
    assert trace.rates == pytest.approx([trace.rates[0] * factor**i for i in range(len(trace.rates))])
    assert trace.found.rates == tuple(trace.rates)
    assert trace.found.edge == trace.rates[-1]


@given(strengths, st.integers(1, 2))
@settings(deadline=None)
def test_observations_may_lag_behind(strength: float, lag: int) -> None:
    climb, waiting, rates = Climb(1000, CONFIG), [], []
    while climb.ended is None:
        begun = climb.unit is not None
        waiting.append(climb.next_lr())
        if begun:
            rates.append(waiting[-1])
        if len(waiting) > lag:
            lr = waiting.pop(0)
            climb.observe(lr, valley()(strength * lr), strength * lr)
    assert rates == sorted(set(rates))
    prompt = climbed(valley(), strength).found
    assert climb.found(0).lr == pytest.approx(prompt.lr)
    assert climb.found(0).rates == pytest.approx(prompt.rates)


# --- what is kept ---


@given(strengths, st.floats(0, 0.05), st.integers(0, 1000))
@settings(deadline=None)
def test_states_are_kept_now_and_then_and_the_last_one_has_almost_the_lowest_loss(
    strength: float, noise: float, seed: int
) -> None:
    trace = climbed(valley(), strength, noise=noise, seed=seed)
    shape, losses = trace.climb.shape(), trace.found.losses
    apart = [b - a for a, b in zip(trace.kept, trace.kept[1:], strict=False)]
    assert trace.kept
    assert all(gap >= trace.climb.steps_per_decade / 8 for gap in apart)
    assert trace.kept[-1] < len(trace.rates) - 1
    assert losses[trace.kept[-1]] < shape.lowest + 0.3 * shape.fall


# --- batches and optimizers that are of no use ---


@given(st.integers(1, 60), st.integers(0, 1000))
@settings(deadline=None)
def test_one_loss_that_is_not_finite_is_left_out_and_changes_hardly_anything(at: int, seed: int) -> None:
    plain, spoiled = (climbed(valley(), noise=0.01, seed=seed, spoil=s).found for s in ([], [at]))
    assert plain.lr is not None
    assert spoiled.lr is not None
    assert 1 / 1.5 < spoiled.lr / plain.lr < 1.5
    assert all(math.isfinite(loss) for loss in spoiled.losses)


@given(st.integers(1, 120), st.floats(0.1, 10), st.sampled_from([150, 300, 1000]), st.integers(0, 1000))
@settings(deadline=None)
def test_one_batch_far_easier_or_harder_than_the_others_changes_hardly_anything(
    at: int, factor: float, steps: int, seed: int
) -> None:
    plain, odd = (
        climbed(valley(), steps=steps, noise=0.01, seed=seed, odd=one).found for one in ((0, 1), (at, factor))
    )
    assert plain.lr is not None
    assert odd.lr is not None
    assert 1 / 1.5 < odd.lr / plain.lr < 1.5


@given(st.integers(1, 60))
@settings(deadline=None)
def test_two_in_a_row_end_the_climb(at: int) -> None:
    trace = climbed(valley(), spoil=[at, at + 1])
    assert len(trace.rates) == at + 1
    assert trace.climb.ended == f"at {trace.rates[-1]:.3g} the loss was no longer finite"
    assert trace.found.broke
    assert trace.climb.ended in trace.found.reason
    assert len(trace.found.rates) == at - 1
    assert not trace.climb.observe(1.0, 1.0, 1.0)


@given(strengths, st.floats(-10, 10))
@settings(deadline=None)
def test_a_loss_that_does_not_fall_gives_no_rate_but_a_reason(strength: float, level: float) -> None:
    found = climbed(lambda change: level, strength).found
    assert found.lr is None
    assert found.bounds is None
    assert "did not fall clearly at any rate" in found.reason


@pytest.mark.parametrize("steps", [60, 300, 1000, 5000])
def test_noise_alone_is_hardly_ever_taken_for_a_fall(steps: int) -> None:
    fooled = [seed for seed in range(60) if climbed(lambda _: 4.0, steps=steps, noise=0.1, seed=seed).found.lr]
    assert len(fooled) <= 3


@pytest.mark.parametrize("steps", [300, 1000, 5000])
def test_a_fall_of_four_times_the_noise_between_batches_is_seen(steps: int) -> None:
    """As that of a LoRA adapter, whose frozen model does most of the work."""
    falling = valley(0.3, depth=0.4, start=2.6)
    blind = [seed for seed in range(60) if not climbed(falling, steps=steps, noise=0.1, seed=seed).found.lr]
    assert len(blind) <= 3


@pytest.mark.parametrize("change", [0.0, 1e-9, math.nan])
def test_an_optimizer_that_moves_nothing_ends_it_with_a_sentence(change: float) -> None:
    climb, steps = Climb(1000, CONFIG), 0
    while climb.ended is None:
        climb.observe(climb.next_lr(), 5.0, change)
        steps += 1
    assert climb.ended.startswith("no weight moved at any rate up to 1e+03")
    assert steps <= 12
    assert climb.unit is None
    found = climb.found(3)
    assert (found.how, found.rates, found.lr, found.edge, found.steps) == ("climb", (), None, None, 3)
    assert climb.ended in found.reason


seen_losses = st.floats(width=32)
changes = st.one_of(st.floats(0, 1e6), st.sampled_from([math.nan, math.inf, 0.0]))


@given(st.lists(st.tuples(seen_losses, changes), min_size=1, max_size=60), st.integers(1, 400))
@settings(deadline=None)
def test_whatever_is_observed_it_ends_and_says_something_that_can_be_logged(
    seen: list[tuple[float, float]], steps: int
) -> None:
    climb, taken = Climb(steps, CONFIG), 0
    while climb.ended is None:
        lr = climb.next_lr()
        assert 0 < lr < math.inf
        climb.observe(lr, *seen[taken % len(seen)])
        taken += 1
        assert taken <= 2 * (12 + climb.most_points) + 2  # every other loss may not be finite
    found = climb.found(0)
    assert found.reason
    if found.lr is not None:
        assert found.edge is not None
        assert 0 < found.lr < found.edge / (10**CONFIG.flat_decades if found.broke else 1)
    record = json.loads(json.dumps(found.to_dict()))
    assert Found.from_dict(record).lr == found.lr


@given(st.integers(1, 1000))
def test_a_faster_climb_lags_more_and_updates_without_second_moments_get_less(pace: int) -> None:
    taken = divisor(pace, CONFIG, second_moments=True)
    assert 1 < divisor(pace + 1, CONFIG, second_moments=True) <= taken <= CONFIG.largest_divisor
    if taken < CONFIG.largest_divisor:
        assert math.log10(taken) * pace == pytest.approx(CONFIG.lag)  # so many steps of the climb
    assert divisor(pace, CONFIG, second_moments=False) == pytest.approx(taken * CONFIG.unscaled_divisor)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=40), st.floats(-2, 2), st.floats(-100, 100))
@settings(deadline=None)
def test_neither_level_nor_slope_is_noise(noise: list[float], slope: float, level: float) -> None:
    sloped = [level + slope * i + x for i, x in enumerate(noise)]
    assert scatter(sloped) == pytest.approx(scatter(noise), abs=1e-9)
    assert scatter(noise[:2]) == 0.0


@given(st.floats(1e-3, 10), st.integers(0, 1000))
@settings(deadline=None)
def test_noise_is_measured_as_its_standard_deviation(sigma: float, seed: int) -> None:
    numbers = random.Random(seed)
    assert scatter([numbers.gauss(3, sigma) for _ in range(400)]) == pytest.approx(sigma, rel=0.35)


# --- saved on its way ---


def watched(climb: Climb, first: int, steps: int) -> list[Any]:
    """What `steps` steps from number `first` on do, on noisy batches that depend on the number alone."""
    seen: list[Any] = []
    for number in range(first, first + steps):
        if climb.ended is not None:
            break
        lr = climb.next_lr()
        kept = climb.observe(lr, valley()(lr) + random.Random(number).gauss(0, 0.02), lr)
        seen.append((lr, kept))
    return [*seen, climb.ended, climb.found(0) if climb.ended is not None else None]


@given(st.integers(0, 80), st.integers(60, 1000))
@settings(max_examples=50, deadline=None)
def test_gone_on_with_from_any_step_it_is_the_same_climb(at: int, steps: int) -> None:
    straight = Climb(steps, CONFIG)
    watched(straight, 0, at)
    if straight.ended is not None:
        return
    state = json.loads(json.dumps(straight.state_dict()))
    resumed = Climb.from_state(state, CONFIG)
    assert resumed.state_dict() == straight.state_dict()
    assert watched(resumed, at, steps) == watched(straight, at, steps)


@pytest.mark.parametrize("garbage", [None, 3, "climb", [], {}, {"points": []}])
def test_what_no_climb_saved_is_refused(garbage: Any) -> None:
    with pytest.raises(ValueError, match="climb state"):
        Climb.check_state(garbage)
    with pytest.raises(ValueError, match="climb state"):
        Climb.from_state(garbage, CONFIG)


def saved() -> dict[str, Any]:
    climb = Climb(1000, CONFIG)
    watched(climb, 0, 60)
    return climb.state_dict()


values = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 60), st.integers(), st.floats(), st.text(max_size=3)),
    st.lists(st.one_of(st.floats(), st.lists(st.floats(), min_size=3, max_size=3)), max_size=3),
)


@given(st.sampled_from(sorted(saved())), values)
@example("steps_per_decade", 0)
@example("points", [[1e-3, math.nan, math.nan]])
@example("points", [])
@example("first_lr", None)
@example("launched", 2**53)
@settings(deadline=None)
def test_a_changed_state_is_refused_or_gone_on_with(name: str, value: Any) -> None:
    state = copy.deepcopy(saved()) | {name: value}
    said = None
    try:
        climb = Climb.from_state(state, CONFIG)
    except ValueError as error:
        said = str(error)
    if said is not None:
        assert "climb state" in said
        assert "\n" not in said
        return
    for number in range(5):
        lr = climb.next_lr()
        assert lr > 0
        climb.observe(lr, 5.0 - number, lr)
