"""The climb as a pure function of what is observed: on landscapes made by hand, on anything, and saved on its way."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.auto_lr.climb import Climb, comparable, level, part_of_peak, steps_per_cycle
from auto_lr.landscapes import CONFIG, Weights, climbed, strengths, valley
from auto_lr.problems import peaks_of

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
def test_a_cycle_takes_a_part_of_the_run_and_the_whole_a_third_or_at_most_two(steps: int) -> None:
    climb, longer = Climb.for_run(steps, CONFIG), Climb.for_run(steps + 100, CONFIG)
    assert CONFIG.shortest_cycle <= climb.steps_per_cycle <= longer.steps_per_cycle
    assert climb.steps_per_cycle <= max(CONFIG.shortest_cycle, CONFIG.short_cycle * steps + 1)
    assert 1 <= climb.usual_points <= max(1, math.ceil(CONFIG.longest * steps))
    assert climb.usual_points <= climb.most_points <= max(1, math.ceil(CONFIG.furthest * steps))


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
def test_a_loss_that_falls_on_and_on_is_followed_until_the_anneal_is_near(steps: int, strength: float) -> None:
    trace = climbed(lambda change: -(math.log10(1 + 1e6 * change) ** 3), strength, steps=steps)
    cycle, most = trace.climb.steps_per_cycle, round(CONFIG.furthest * steps)
    assert len(trace.rates) <= max(cycle, most)
    assert len(trace.rates) > most - cycle or max(trace.rates) * 1.8 > CONFIG.last_lr
    assert trace.steps <= len(trace.rates) + 12
    assert trace.climb.ended is not None
    assert trace.found.lr is not None
    assert max(trace.rates) / 3 < trace.found.lr <= max(trace.rates) * (1 + 1e-9)


@given(st.integers(80, 400), st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_a_short_run_climbs_further_than_a_third_only_while_that_may_gain(steps: int, seed: int) -> None:
    """Higher rates than the knee's gain nothing: then a third it is. With noise alone nothing shows yet."""
    patient = replace(CONFIG, flat_cycles=100)
    flat = climbed(lambda change: 5 - min(change, 0.01), steps=steps, config=patient)
    assert len(flat.rates) <= round(CONFIG.longest * steps)
    noisy = climbed(lambda change: 5.0, noise=0.1, seed=seed, steps=steps)
    if not noisy.found.clear and not noisy.climb.broke:
        usual, most = noisy.climb.usual_points, noisy.climb.most_points
        assert len(noisy.rates) > usual
        assert max(noisy.rates) >= CONFIG.drastic_change or len(noisy.rates) > most - noisy.climb.steps_per_cycle


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
