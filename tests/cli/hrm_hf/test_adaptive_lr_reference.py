"""The fast scheduler against a slow, readable one written from the contract's text, on random runs."""

from __future__ import annotations

import json
import math
import statistics
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler


class ReferenceScheduler:
    """The contract's rules one by one: keeps every loss and works everything out again when it is needed."""

    def __init__(self, config: AdaptiveLRConfig) -> None:
        self.config, self.lr = config, config.initial_lr
        self.seen: list[float] = []
        self.windows: list[list[float]] = []
        self.open: list[float] = []
        self.plateau = 0
        self.changes: list[tuple[int, str, float]] = []
        self.brakes: list[int] = []

    def step(self, loss: float) -> float:
        self.seen.append(loss)
        if math.isnan(loss) or math.isinf(loss):
            self.open = []
            if all(len(self.seen) - brake >= self.config.cooldown_steps for brake in self.brakes):
                self.brakes.append(len(self.seen))
                self.plateau = 0
                self.change("spike_decrease")
            return self.lr
        self.open.append(loss)
        if len(self.open) == self.config.window_size:
            self.windows.append(self.open)
            self.open = []
            self.change(self.decide())
        return self.lr

    def decide(self) -> str:
        c, window = self.config, self.windows[-1]
        mean = statistics.mean(window)
        previous = statistics.mean(self.windows[-2]) if len(self.windows) > 1 else None
        cv = statistics.pstdev(window) / abs(mean) if mean else math.inf if statistics.pstdev(window) else 0
        rate = 0.0 if previous is None else self.rate(previous - mean, previous)
        slope = statistics.linear_regression(range(len(window)), window).slope
        last = self.changes[-1][0] if self.changes else 0
        if len(self.seen) - last < c.cooldown_steps:
            return "hold"
        if previous is not None and mean - previous > (c.spike_threshold - 1) * abs(previous):
            self.plateau = 0
            return "spike_decrease"
        if cv > c.instability_threshold:
            self.plateau = 0
            return "decrease"
        if rate > c.increase_threshold and cv < c.stability_threshold and slope < 0 and self.lr < c.lr_max:
            self.plateau = 0
            return "increase"
        if previous is not None and rate < c.plateau_threshold:
            self.plateau += c.window_size
            if self.plateau >= c.patience and self.lr > c.lr_min:
                self.plateau = 0
                return "decrease"
            return "hold"
        self.plateau = 0
        return "hold"

    @staticmethod
    def rate(improvement: float, previous: float) -> float:
        if previous:
            return improvement / abs(previous)
        return math.copysign(math.inf, improvement) if improvement else 0.0

    def change(self, decision: str) -> None:
        c = self.config
        if decision == "hold":
            return
        factors = {"increase": c.increase_factor, "decrease": c.decrease_factor}
        ratio = factors.get(decision, c.spike_factor)
        if decision != "spike_decrease" or c.rate_limit_spikes:
            ratio = max(1 - c.max_change_per_step, min(1 + c.max_change_per_step, ratio))
        new = max(c.lr_min, min(c.lr_max, self.lr * ratio))
        if new != self.lr:
            self.lr = new
            self.changes.append((len(self.seen), decision, new))


configs = st.builds(
    AdaptiveLRConfig,
    initial_lr=st.floats(1e-4, 1e-2),
    lr_min=st.sampled_from([1e-6, 1e-4, 9e-5]),
    lr_max=st.sampled_from([1e-2, 2e-2, 1.0]),
    window_size=st.integers(2, 7),
    patience=st.integers(1, 20),
    cooldown_steps=st.integers(0, 15),
    increase_threshold=st.floats(0.01, 0.1),
    plateau_threshold=st.floats(0.0005, 0.01),
    spike_threshold=st.floats(1.05, 2.0),
    stability_threshold=st.floats(0.05, 0.3),
    instability_threshold=st.floats(0.3, 1.0),
    increase_factor=st.floats(1.0, 2.0),
    decrease_factor=st.floats(0.2, 1.0),
    spike_factor=st.floats(0.2, 1.0),
    max_change_per_step=st.floats(0.05, 1.0),
    rate_limit_spikes=st.booleans(),
)
# Sixteenths are exact in floating point: no decision hangs on the last bit of a sum.
numbers = st.integers(-40, 80).map(lambda n: n / 16) | st.integers(16, 24).map(lambda n: n / 16)
losses = st.lists(numbers | numbers | numbers | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=80)
Events = list[dict[str, Any]]


def build(config: AdaptiveLRConfig) -> tuple[AdaptiveLRScheduler, Events]:
    events: Events = []
    groups = SimpleNamespace(param_groups=[{"lr": 1.0}, {"lr": 3.0}])
    return AdaptiveLRScheduler(groups, config, log_fn=events.append), events


def found_changes(events: Events) -> list[tuple[int, str, float]]:
    found = [event for event in events if event["event"] == "adaptive_lr_adjustment"]
    return [(event["step"], event["decision"], event["new_lr"]) for event in found]


@settings(max_examples=300, deadline=None)
@given(configs, losses)
def test_the_fast_scheduler_agrees_with_the_readable_one(config: AdaptiveLRConfig, run: list[float]) -> None:
    fast, events = build(config)
    slow = ReferenceScheduler(config)
    for loss in run:
        assert fast.step(loss) == slow.step(loss)
    assert found_changes(events) == slow.changes
    assert fast.adjustments_made == len(slow.changes)


def test_random_runs_reach_every_decision() -> None:
    """The comparison above means something only if its losses make the schedulers act."""
    config = AdaptiveLRConfig(initial_lr=1e-3, window_size=2, cooldown_steps=0, patience=4)
    slow = ReferenceScheduler(config)
    for loss in [4, 4, 4, 4, 4, 4, 3, 2.5, 2, 1.5, 9, 9, math.nan, 1, 0.25]:
        slow.step(float(loss))
    assert [decision for _, decision, _ in slow.changes] == [
        *("decrease", "increase", "increase", "spike_decrease", "spike_decrease", "decrease"),
    ]


@settings(max_examples=150, deadline=None)
@given(configs, losses)
def test_the_rate_stays_in_bounds_and_changes_within_its_limit(config: AdaptiveLRConfig, run: list[float]) -> None:
    fast, events = build(config)
    for loss in run:
        assert config.lr_min <= fast.step(loss) <= config.lr_max
        assert fast.get_last_lr() == [fast.current_lr, fast.current_lr * 3]
    for event in events[1:]:
        ratio, limit = event["new_lr"] / event["old_lr"], config.max_change_per_step
        if event["decision"] != "spike_decrease" or config.rate_limit_spikes:
            assert 1 - limit - 1e-12 <= ratio <= 1 + limit + 1e-12
        assert event["new_lr"] != event["old_lr"]


@settings(max_examples=150, deadline=None)
@given(configs, losses, st.integers(0, 80))
def test_a_run_split_anywhere_equals_the_unsplit_run(config: AdaptiveLRConfig, run: list[float], at: int) -> None:
    whole, events = build(config)
    expected = [whole.step(loss) for loss in run]
    first, first_events = build(config)
    found = [first.step(loss) for loss in run[:at]]
    second, second_events = build(config)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    found += [second.step(loss) for loss in run[at:]]
    assert found == expected
    assert found_changes(first_events) + found_changes(second_events) == found_changes(events)
    assert second.state_dict() == whole.state_dict()


@settings(max_examples=100, deadline=None)
@given(configs, losses, st.integers(-8, 8))
def test_decisions_do_not_depend_on_the_unit_of_the_loss(
    config: AdaptiveLRConfig, run: list[float], power: int
) -> None:
    plain, scaled = build(config)[0], build(config)[0]
    for loss in run:
        assert plain.step(loss) == scaled.step(loss * 2.0**power)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(), max_size=60))
def test_no_float_however_extreme_breaks_the_scheduler(run: list[float]) -> None:
    fast, _ = build(AdaptiveLRConfig(window_size=3, cooldown_steps=2))
    for loss in run:
        fast.step(loss)
    fast.load_state_dict(fast.state_dict())
    assert fast.config.lr_min <= fast.current_lr <= fast.config.lr_max
