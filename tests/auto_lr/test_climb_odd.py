"""A climb that meets odd batches, noise, silence and damaged states."""

from __future__ import annotations

import copy
import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aios.auto_lr.climb import Climb
from aios.auto_lr.robust_window import scatter
from aios.auto_lr.search import Found
from auto_lr.landscapes import CONFIG, Weights, changes, climbed, strengths, valley
from auto_lr.problems import peaks_of

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
def test_a_loss_that_does_not_fall_gives_the_middle_of_what_is_known(strength: float, level: float) -> None:
    found = climbed(lambda change: level or 1.0, strength).found
    assert not found.clear
    assert found.lr == pytest.approx(math.sqrt(found.rates[0] * found.rates[-1]))
    assert "did not fall clearly at any rate" in found.reason


@pytest.mark.parametrize("steps", [80, 300, 1000, 5000])
def test_noise_alone_is_hardly_ever_taken_for_a_fall(steps: int) -> None:
    fooled = [seed for seed in range(200) if climbed(lambda _: 4.0, steps=steps, noise=0.1, seed=seed).found.clear]
    assert len(fooled) <= 10


@pytest.mark.parametrize("steps", [300, 1000, 5000])
def test_a_fall_of_four_times_the_noise_between_batches_is_seen(steps: int) -> None:
    """As that of a LoRA adapter, whose frozen model does most of the work."""
    falling = valley(0.3, depth=0.4, start=2.6)
    blind = [seed for seed in range(60) if not climbed(falling, steps=steps, noise=0.1, seed=seed).found.clear]
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
