"""The climb as a pure function of what is observed: on landscapes made by hand, on anything, and saved on its way."""

from __future__ import annotations

import copy
import json
import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aios.auto_lr.climb import Climb, comparable, level, part_of_peak, steps_per_cycle
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.robust_window import scatter
from aios.auto_lr.search import Found
from auto_lr.problems import peaks_of

CONFIG = ClimbConfig()
Landscape = Callable[[float], float]
"""The loss by the largest change of an update in the last cycle's worth of steps: weights remember what high rates did
to them when the rate has fallen again."""


def valley(edge: float = 0.1, depth: float = 3.0, start: float = 5.0) -> Landscape:
    """Flat, then falling over about two decades, lowest just below `edge`, and rising steeply above it."""

    def loss(change: float) -> float:
        fall = depth / (1 + (edge / 10 / change) ** 1.5) if change > 0 else 0.0
        return start - fall + max(0.0, 10 * (change / edge - 1))

    return loss


class Weights:
    """What is left of the updates of `climb`, one of which changes `strength` x lr."""

    def __init__(self, climb: Climb, strength: float) -> None:
        self._strength = strength
        self._rates: deque[float] = deque(maxlen=climb.steps_per_cycle)

    def after(self, lr: float) -> float:
        """The change that counts once an update at `lr` is among them."""
        self._rates.append(lr)
        return self._strength * max(self._rates)


@dataclass
class Trace:
    """What a climb did."""

    climb: Climb
    rates: list[float] = field(default_factory=list)
    """Of the steps after it was known where to begin."""
    kept: list[int] = field(default_factory=list)
    """Numbers of the cycles at whose end the state was worth keeping."""
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
    config: ClimbConfig = CONFIG,
) -> Trace:
    """Climb to the end; an update at `lr` changes `strength` x lr, give or take, batches in `spoil` give NaN, and the
    loss of the one that `odd` names is so many times what it should be."""
    numbers, spoiled = random.Random(seed), set(spoil)
    noise_at = noise if callable(noise) else lambda change: noise
    trace = Trace(Climb.for_run(steps, config))
    weights = Weights(trace.climb, strength)
    while trace.climb.ended is None:
        begun, lr = trace.climb.unit is not None, trace.climb.next_lr()
        change, reached = strength * lr * math.exp(numbers.gauss(0, jitter)), weights.after(lr)
        loss = landscape(reached) + numbers.gauss(0, noise_at(reached))
        trace.steps += 1
        if begun:
            trace.rates.append(lr)
            loss = math.nan if len(trace.rates) in spoiled else loss
            loss *= odd[1] if len(trace.rates) == odd[0] else 1.0
        if trace.climb.observe(lr, loss, change):
            number, place = divmod(len(trace.rates), trace.climb.steps_per_cycle)
            assert place == 0
            trace.kept.append(number - 1)
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
        assert strength * other.lr == pytest.approx(plain.lr, rel=0.02)  # the start is seen for longer or shorter
    assert 1 / 3 < strength * other.lr / plain.lr < 3


@pytest.mark.parametrize("seed", range(8))
def test_noise_that_comes_with_what_is_learned_does_not_end_it(seed: int) -> None:
    """An untrained classifier finds all batches alike; one that has begun to learn tells them apart."""
    falling = valley(0.3, depth=0.8, start=2.3)
    trace = climbed(falling, noise=lambda change: 0.01 + 0.3 * (2.3 - min(2.3, falling(change))), seed=seed)
    assert trace.found.lr is not None
    assert 0.3 / 15 < trace.found.lr < 0.3


@given(st.floats(-3, 3).map(lambda exponent: 10**exponent), st.integers(0, 1000))
@settings(deadline=None)
def test_the_unit_of_the_loss_does_not_matter(unit: float, seed: int) -> None:
    plain = climbed(valley(), noise=0.02, seed=seed).found
    other = climbed(lambda change: unit * valley()(change), noise=0.02 * unit, seed=seed).found
    assert plain.lr is not None
    assert other.lr == pytest.approx(plain.lr, rel=1e-6)


@given(st.floats(-1e6, 1e6), st.integers(0, 1000))
@settings(deadline=None)
def test_a_constant_in_the_loss_changes_the_rate_by_little(constant: float, seed: int) -> None:
    """Losses are compared by their ratios where they are positive; far from zero that is by their differences."""
    plain = climbed(valley(), noise=0.02, seed=seed).found
    moved = climbed(lambda change: constant + valley()(change), noise=0.02, seed=seed).found
    assert plain.lr is not None
    assert moved.lr is not None
    assert 1 / 1.6 < moved.lr / plain.lr < 1.6


@given(st.lists(st.floats(-1e3, 0) | st.floats(1e-300, 1e3), min_size=1, max_size=9))
def test_losses_are_compared_by_ratios_where_all_are_positive(losses: list[float]) -> None:
    scale = comparable(losses)
    a, b = losses[0], losses[-1]
    if min(losses) > 0:
        assert scale(a) - scale(b) == pytest.approx(math.log(a / b), abs=1e-9)
    else:
        assert scale(a) - scale(b) == a - b


@given(st.lists(st.floats(-1e3, 1e3), min_size=3, max_size=20), st.floats(-1e9, 1e9))
def test_one_odd_loss_does_not_lead_the_level_away(losses: list[float], odd: float) -> None:
    assert min(losses) - 1e-9 <= level([*losses, odd]) <= max(losses) + 1e-9


@given(st.integers(1, 10**5))
@settings(deadline=None)
def test_a_cycle_takes_a_part_of_the_run_and_the_whole_at_most_a_third(steps: int) -> None:
    climb, longer = Climb.for_run(steps, CONFIG), Climb.for_run(steps + 100, CONFIG)
    assert CONFIG.shortest_cycle <= climb.steps_per_cycle <= longer.steps_per_cycle
    assert climb.steps_per_cycle <= max(CONFIG.shortest_cycle, CONFIG.short_cycle * steps + 1)
    assert 1 <= climb.most_points <= max(1, math.ceil(CONFIG.longest * steps))


@given(st.integers(1000, 10**5), st.integers(2, 16))
@settings(deadline=None)
def test_in_long_runs_cycles_lengthen_less_than_the_runs(steps: int, longer: int) -> None:
    cycle = steps_per_cycle(steps, CONFIG)
    assert steps_per_cycle(longer * steps, CONFIG) <= math.sqrt(longer) * (cycle + 0.5) + 0.5  # both are rounded


@given(st.integers(4, 500))
def test_a_cycle_rises_to_its_peak_rests_there_and_falls_to_almost_nothing(steps: int) -> None:
    parts = [part_of_peak(place, steps, CONFIG) for place in range(steps)]
    top = [place for place, part in enumerate(parts) if part == 1.0]
    assert top
    assert parts[: top[0] + 1] == sorted(parts[: top[0] + 1])
    assert parts[top[-1] :] == sorted(parts[top[-1] :], reverse=True)
    assert top == list(range(top[0], top[-1] + 1))
    assert parts[-1] <= 1 / (CONFIG.decay_part * steps)
    assert min(parts) > 0


@given(st.integers(60, 2000), strengths)
@settings(max_examples=50, deadline=None)
def test_a_loss_that_never_breaks_ends_the_climb_in_its_part_of_the_run(steps: int, strength: float) -> None:
    trace = climbed(lambda change: 5 - math.log10(1 + 1e6 * change), strength, steps=steps)
    assert len(trace.rates) <= max(trace.climb.steps_per_cycle, round(CONFIG.longest * steps))
    assert trace.steps <= len(trace.rates) + 12
    assert trace.climb.ended is not None


@given(strengths, st.floats(0, 0.1), st.integers(0, 1000))
@settings(deadline=None)
def test_peaks_rise_evenly_from_an_update_that_trains_little(strength: float, noise: float, seed: int) -> None:
    trace = climbed(valley(), strength, noise=noise, seed=seed)
    factor, cycle = 10 ** (1 / CONFIG.cycles_per_decade), trace.climb.steps_per_cycle
    peaks = peaks_of(trace.rates, cycle)
    assert len(trace.rates) % cycle == 0
    assert strength * peaks[0] == pytest.approx(CONFIG.first_change)
    assert peaks == pytest.approx([peaks[0] * factor**i for i in range(len(peaks))])
    assert trace.found.rates == pytest.approx(peaks)
    assert trace.found.edge == pytest.approx(peaks[-1])


@given(strengths, st.integers(1, 2))
@settings(deadline=None)
def test_observations_may_lag_behind(strength: float, lag: int) -> None:
    climb, waiting, rates = Climb.for_run(1000, CONFIG), [], []
    weights = Weights(climb, strength)
    while climb.ended is None:
        begun = climb.unit is not None
        waiting.append(climb.next_lr())
        if begun:
            rates.append(waiting[-1])
        if len(waiting) > lag:
            lr = waiting.pop(0)
            climb.observe(lr, valley()(weights.after(lr)), strength * lr)
    prompt = climbed(valley(), strength)
    assert rates[: len(prompt.rates)] == pytest.approx(prompt.rates)
    assert climb.found(0).lr == pytest.approx(prompt.found.lr, rel=0.02)
    assert climb.found(0).rates == pytest.approx(prompt.found.rates)


# --- what is kept ---


@given(strengths, st.floats(0, 0.05), st.integers(0, 1000))
@settings(deadline=None)
def test_states_are_kept_at_the_ends_of_cycles_up_to_the_knee(strength: float, noise: float, seed: int) -> None:
    trace = climbed(valley(), strength, noise=noise, seed=seed)
    shape = trace.climb.shape()
    assert shape is not None
    assert trace.kept
    assert trace.kept[-1] < len(shape.ends) - 1
    assert shape.knee <= trace.kept[-1] + 1  # the rate taken is no higher than what the state kept has been through,
    assert trace.kept[-1] <= math.ceil(shape.knee)  # by more than the last step up


@given(strengths, st.floats(0, 0.05), st.integers(0, 1000))
@settings(deadline=None)
def test_a_checkpoint_ends_it_only_behind_the_knee(strength: float, noise: float, seed: int) -> None:
    numbers, climb = random.Random(seed), Climb.for_run(1000, CONFIG)
    weights = Weights(climb, strength)
    while climb.ended is None:
        lr = climb.next_lr()
        climb.observe(lr, valley()(weights.after(lr)) + numbers.gauss(0, noise), strength * lr)
        if climb.ended is None and climb.settle():
            shape = climb.shape()
            assert shape is not None
            assert shape.clear
            assert len(shape.ends) - 1 > shape.knee
            assert climb.ended is not None
            assert climb.ended.endswith("a checkpoint was due")
    assert climb.found(0).lr is not None


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
    assert len(trace.found.rates) == (at + 1) // trace.climb.steps_per_cycle
    assert not trace.climb.observe(1.0, 1.0, 1.0)


@given(st.sets(st.integers(0, 200)), strengths)
@settings(deadline=None)
def test_steps_that_tell_nothing_take_their_place_in_the_cycles(silent: set[int], strength: float) -> None:
    """As under loss scaling, where a gradient overflows now and then: peaks and ends stay where they were."""
    climb, taken, rates = Climb.for_run(1000, CONFIG), 0, []
    weights = Weights(climb, strength)
    while climb.ended is None:
        begun, lr = climb.unit is not None, climb.next_lr()
        loss = None if taken in silent else valley()(weights.after(lr))
        climb.observe(lr, loss, strength * lr)
        taken += 1
        if begun:
            rates.append(lr)
    found, cycle = climb.found(0), climb.steps_per_cycle
    assert len(rates) % cycle == 0
    assert found.rates == pytest.approx(peaks_of(rates, cycle))
    if not silent:
        assert found.lr is not None


@given(st.integers(100, 2000))
@settings(deadline=None)
def test_where_no_step_tells_anything_it_ends_all_the_same(steps: int) -> None:
    climb, taken = Climb.for_run(steps, CONFIG), 0
    while climb.ended is None and taken < steps:
        climb.observe(climb.next_lr(), None if climb.unit is not None else 5.0, 1.0)
        taken += 1
    assert climb.ended is not None
    assert climb.found(0).lr is None


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
    climb, steps = Climb.for_run(1000, CONFIG), 0
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
    climb, taken = Climb.for_run(steps, CONFIG), 0
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
        assert 0 < found.lr <= found.edge
    record = json.loads(json.dumps(found.to_dict()))
    assert Found.from_dict(record).lr == found.lr


@given(strengths, st.floats(0, 0.05), st.integers(0, 1000), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None)
def test_the_more_momentum_updates_are_made_from_the_lower_is_the_rate(
    strength: float, noise: float, seed: int, one: float, other: float
) -> None:
    climb = climbed(valley(), strength, noise=noise, seed=seed).climb
    less, more = (climb.found(0, momentum).lr for momentum in sorted((one, other)))
    none, usual = climb.found(0).lr, climb.found(0, 0.9).lr
    assert none is not None
    assert none >= (less or 0.0) >= (more or 0.0) > 0
    assert usual == pytest.approx(none / 2.5, rel=0.01)


@given(strengths, st.floats(1.1, 10), st.booleans())
@settings(deadline=None)
def test_a_model_that_is_known_to_want_less_gets_a_part_of_the_knee_and_is_told_so(
    strength: float, divisor: float, moves_on: bool
) -> None:
    momentum = 0.9 if moves_on else 0.0
    plain = climbed(valley(), strength).climb.found(0, momentum)
    less = climbed(valley(), strength, config=replace(CONFIG, divisor=divisor)).climb.found(0, momentum)
    assert plain.lr is not None
    assert less.lr == pytest.approx(plain.lr / divisor)
    whole = divisor * (1 - momentum) ** -CONFIG.momentum_power
    assert f"gained nothing, and a whole run wants 1/{whole:.3g} of that; " in less.reason
    assert ("a whole run wants" in plain.reason) is moves_on


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
    straight = Climb.for_run(steps, CONFIG)
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
    climb = Climb.for_run(1000, CONFIG)
    watched(climb, 0, 60)
    return climb.state_dict()


values = st.one_of(
    *(st.none(), st.booleans(), st.integers(-2, 60), st.integers(), st.floats(), st.text(max_size=3)),
    st.lists(st.one_of(st.floats(), st.lists(st.floats(), min_size=3, max_size=3)), max_size=3),
)


@given(st.sampled_from(sorted(saved())), values)
@example("steps_per_cycle", 0)
@example("points", [[0, math.nan, math.nan]])
@example("points", [])
@example("unit", None)
@example("early", 3)
@example("observed", 15)
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
