"""The scheduler's contract: metrics, decision, adjustment, events, state, recorded traces."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from aios.cli.hrm_hf import adaptive_lr
from aios.cli.hrm_hf.adaptive_lr import (
    AdaptiveLRConfig,
    AdaptiveLRScheduler,
    LossMetrics,
    LRDecision,
    adjust,
    compute_metrics,
    decide,
    warmup_lr,
)

TRACES = sorted((Path(__file__).parent / "traces").glob("trace_*.json"))


def optimizer(*lrs: float) -> SimpleNamespace:
    return SimpleNamespace(param_groups=[{"lr": lr} for lr in lrs or (1e-3,)])


def scheduler(*lrs: float, use_moe: bool = False, **settings: Any) -> tuple[AdaptiveLRScheduler, list[dict]]:
    """A scheduler with windows of 4 and no cooldown unless told otherwise, and the events it emits."""
    events: list[dict] = []
    config = AdaptiveLRConfig(**{"initial_lr": 1e-3, "window_size": 4, "cooldown_steps": 0, **settings})
    return AdaptiveLRScheduler(optimizer(*lrs), config, use_moe, events.append), events


def feed(target: AdaptiveLRScheduler, *losses: float) -> float:
    for loss in losses:
        target.step(loss)
    return target.current_lr


def adjustments(events: list[dict]) -> list[dict]:
    return [event for event in events if event["event"] == "adaptive_lr_adjustment"]


def metrics(**values: float | None) -> LossMetrics:
    """A quiet, steadily but slowly improving window."""
    usual = {"current_avg": 1.99, "previous_avg": 2.0, "current_std": 0.01, "improvement": 0.01}
    return LossMetrics(**{**usual, "improvement_rate": 0.005, "cv": 0.005, "trend": -0.001, **values})  # type: ignore[arg-type]


def test_the_recorded_traces_are_all_here() -> None:
    assert len(TRACES) == 24


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_recorded_trace(path: Path) -> None:
    trace, events = json.loads(path.read_text()), []
    target = AdaptiveLRScheduler(optimizer(), AdaptiveLRConfig(**trace["config"]), log_fn=events.append)
    feed(target, *map(float, trace["losses"]))
    found = adjustments(events)
    assert [(e["step"], e["decision"]) for e in found] == [(e["step"], e["decision"]) for e in trace["adjustments"]]
    for key in ("old_lr", "new_lr"):
        assert [e[key] for e in found] == pytest.approx([e[key] for e in trace["adjustments"]], rel=1e-9)
    assert target.current_lr == pytest.approx(trace["final_lr"], rel=1e-9)


def test_metrics_computation() -> None:
    losses = [3.0, 2.5, 2.75, 2.0, 1.5]
    found = compute_metrics(losses, previous_avg=2.5)
    assert found.current_avg == pytest.approx(np.mean(losses))
    assert found.current_std == pytest.approx(np.std(losses))
    assert found.cv == pytest.approx(np.std(losses) / np.mean(losses))
    assert found.trend == pytest.approx(np.polyfit(range(5), losses, 1)[0])
    assert (found.previous_avg, found.improvement) == (2.5, pytest.approx(2.5 - 2.35))
    assert found.improvement_rate == pytest.approx(0.06)


def test_metrics_of_the_first_window_show_no_improvement() -> None:
    found = compute_metrics([2.0, 1.0], None)
    assert (found.improvement, found.improvement_rate, found.previous_avg) == (0.0, 0.0, None)


@pytest.mark.parametrize("level", [0.1, 1 / 3, 7.3, -2.2, 1e-300, 1e300])
def test_a_constant_window_has_no_spread_and_no_trend(level: float) -> None:
    found = compute_metrics([level] * 49, level)
    assert (found.current_avg, found.current_std, found.trend, found.improvement_rate) == (
        level,
        0.0,
        0.0,
        0.0,
    )


def test_negative_losses_use_the_size_of_the_mean() -> None:
    found = compute_metrics([-2.0, -4.0], previous_avg=-2.0)
    assert (found.improvement_rate, found.cv) == (pytest.approx(0.5), pytest.approx(1 / 3))


def test_a_mean_of_zero_gives_limits_not_an_error() -> None:
    found = compute_metrics([-1.0, 1.0], previous_avg=0.0)
    assert (found.cv, found.improvement_rate) == (math.inf, 0.0)
    assert compute_metrics([1.0, 1.0], previous_avg=0.0).improvement_rate == -math.inf


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, LRDecision.HOLD),
        ({"current_avg": 2.41}, LRDecision.SPIKE_DECREASE),
        ({"current_avg": 2.39}, LRDecision.HOLD),
        ({"current_avg": 2.41, "previous_avg": None}, LRDecision.HOLD),
        ({"current_avg": 2.41, "cv": 0.6}, LRDecision.SPIKE_DECREASE),
        ({"cv": 0.6}, LRDecision.DECREASE),
        ({"cv": 0.6, "improvement_rate": 0.05}, LRDecision.DECREASE),
        ({"improvement_rate": 0.05}, LRDecision.INCREASE),
        ({"improvement_rate": 0.02}, LRDecision.HOLD),
        ({"improvement_rate": 0.05, "cv": 0.3}, LRDecision.HOLD),
        ({"improvement_rate": 0.05, "trend": 0.0}, LRDecision.HOLD),
        ({"improvement_rate": 0.0}, LRDecision.DECREASE),
        ({"improvement_rate": 0.001}, LRDecision.HOLD),
        ({"improvement_rate": 0.0, "previous_avg": None}, LRDecision.HOLD),
    ],
)
def test_decision_logic(changes: dict[str, float | None], expected: LRDecision) -> None:
    decision, _, _ = decide(metrics(**changes), AdaptiveLRConfig(), 1e-3, 1000, 0)
    assert decision is expected


def test_a_spike_below_zero_is_measured_by_the_size_of_the_mean() -> None:
    config = AdaptiveLRConfig()
    assert decide(metrics(current_avg=-1.9, previous_avg=-2.0), config, 1e-3, 99, 0)[0] is LRDecision.HOLD
    spiked = decide(metrics(current_avg=-1.5, previous_avg=-2.0), config, 1e-3, 99, 0)
    assert spiked[0] is LRDecision.SPIKE_DECREASE


def test_at_the_bounds_neither_increase_nor_decrease_is_decided() -> None:
    config = AdaptiveLRConfig()
    up, flat = metrics(improvement_rate=0.05), metrics(improvement_rate=0.0)
    assert decide(up, config, config.lr_max, 99, 0)[0] is LRDecision.HOLD
    assert decide(flat, config, config.lr_min, 99, 0)[0] is LRDecision.HOLD


def test_patience_counts_steps_of_consecutive_plateau_windows() -> None:
    config = AdaptiveLRConfig(patience=150)
    flat = metrics(improvement_rate=0.0)
    assert decide(flat, config, 1e-3, 99, 0)[:2] == (LRDecision.HOLD, 50)
    assert decide(flat, config, 1e-3, 99, 50)[:2] == (LRDecision.HOLD, 100)
    assert decide(flat, config, 1e-3, 99, 100)[:2] == (LRDecision.DECREASE, 0)
    assert decide(metrics(), config, 1e-3, 99, 100)[:2] == (LRDecision.HOLD, 0)
    assert decide(flat, config, 1e-3, 19, 100)[:2] == (LRDecision.HOLD, 100)


def test_rate_limiting() -> None:
    config = AdaptiveLRConfig(increase_factor=3.0, decrease_factor=0.1, spike_factor=0.2)
    assert adjust(1e-3, LRDecision.INCREASE, config) == pytest.approx(1.3e-3)
    assert adjust(1e-3, LRDecision.DECREASE, config) == pytest.approx(0.7e-3)
    assert adjust(1e-3, LRDecision.SPIKE_DECREASE, config) == pytest.approx(0.2e-3)
    limited = replace(config, rate_limit_spikes=True)
    assert adjust(1e-3, LRDecision.SPIKE_DECREASE, limited) == pytest.approx(0.7e-3)
    assert adjust(1e-3, LRDecision.HOLD, config) == 1e-3


def test_adjustments_stay_inside_the_bounds() -> None:
    config = AdaptiveLRConfig(lr_min=9e-4, lr_max=1.05e-3)
    assert adjust(1e-3, LRDecision.INCREASE, config) == 1.05e-3
    assert adjust(1e-3, LRDecision.SPIKE_DECREASE, config) == 9e-4


def test_cooldown() -> None:
    target, events = scheduler(cooldown_steps=9, patience=1)
    feed(target, *[2.0] * 24)  # a plateau from the second window on
    assert [event["step"] for event in adjustments(events)] == [12, 24]


def test_an_adjustment_that_changes_nothing_is_not_recorded_and_starts_no_cooldown() -> None:
    target, events = scheduler(initial_lr=1e-3, lr_min=1e-3, cooldown_steps=8, patience=100)
    feed(target, *[1.0] * 8, *[2.0] * 4)  # a spike at lr_min
    assert (adjustments(events), target.adjustments_made) == ([], 0)
    feed(target, 1.6, 1.5, 1.4, 1.3)
    assert [event["decision"] for event in adjustments(events)] == ["increase"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_non_finite_loss_brakes_at_once_even_in_cooldown(bad: float) -> None:
    target, events = scheduler(cooldown_steps=100)
    feed(target, 2.0, bad)
    (event,) = adjustments(events)
    assert (event["step"], event["decision"], event["reason"]) == (2, "spike_decrease", "non_finite_loss")
    assert event["new_lr"] == pytest.approx(5e-4)
    assert json.loads(json.dumps(event, allow_nan=False))["metrics"]["loss_avg"] is None


def test_a_second_non_finite_loss_brakes_only_after_the_cooldown() -> None:
    target, events = scheduler(cooldown_steps=3)
    feed(target, math.nan, math.nan, math.nan, math.nan)
    assert [event["step"] for event in adjustments(events)] == [1, 4]


def test_a_non_finite_loss_empties_the_window_and_keeps_the_previous_mean() -> None:
    target, _ = scheduler(cooldown_steps=2)
    feed(target, 2.0, 2.0, 2.0, 2.0, 9.0, 9.0, math.nan, 1.9, math.nan)
    state = target.state_dict()
    assert (state["window"], state["previous_avg"], state["total_steps"]) == ([], 2.0, 9)


def test_a_brake_ends_the_plateau() -> None:
    target, _ = scheduler(patience=100)
    feed(target, *[2.0] * 12)
    assert target.state_dict()["plateau_steps"] == 8
    feed(target, math.nan)
    assert target.state_dict()["plateau_steps"] == 0


def test_the_history_stays_bounded_after_a_resume_too() -> None:
    target, _ = scheduler(spike_factor=0.999)
    feed(target, *[math.nan] * 1500)
    assert len(target.lr_history) == 1000
    target.load_state_dict(target.state_dict())
    feed(target, math.nan)
    assert (len(target.lr_history), target.lr_history[-1]) == (1000, target.current_lr)


def test_param_groups_keep_their_ratio_to_the_first() -> None:
    target, _ = scheduler(1e-2, 2e-2, 0.0, patience=1)
    assert target.get_last_lr() == pytest.approx([1e-3, 2e-3, 0.0])
    feed(target, *[2.0] * 8)
    assert target.get_last_lr() == pytest.approx([7e-4, 1.4e-3, 0.0])


def test_the_base_of_a_group_is_its_initial_lr_entry_where_there_is_one() -> None:
    groups = [{"lr": 5e-5, "initial_lr": 1e-3}, {"lr": 5e-4, "initial_lr": 1e-2}, {"lr": 4e-3}]
    target = AdaptiveLRScheduler(SimpleNamespace(param_groups=groups), AdaptiveLRConfig(initial_lr=1e-4))
    assert target.get_last_lr() == pytest.approx([1e-4, 1e-3, 4e-4])


def test_a_group_added_later_joins_with_its_own_ratio() -> None:
    target, _ = scheduler(1e-3, patience=1)
    target.optimizer.param_groups.append({"lr": 3e-3})
    feed(target, *[2.0] * 8)
    assert target.get_last_lr() == pytest.approx([7e-4, 2.1e-3])


@pytest.mark.parametrize("lr", [0.0, -1e-3, math.nan])
def test_a_first_group_without_a_positive_rate_is_refused(lr: float) -> None:
    with pytest.raises(ValueError, match="first param group"):
        AdaptiveLRScheduler(optimizer(lr), AdaptiveLRConfig())


def test_warmup_to_adaptive_transition() -> None:
    base, steps = 3e-4, 7
    ramp = [warmup_lr(base, step, steps) for step in range(steps)]
    assert ramp == pytest.approx([base * (step + 1) / steps for step in range(steps)])
    group = {"lr": base}
    target_optimizer = SimpleNamespace(param_groups=[group])
    for lr in ramp:
        group["lr"] = lr
    events: list[dict] = []
    target = AdaptiveLRScheduler(
        target_optimizer,
        AdaptiveLRConfig(initial_lr=base, window_size=4, patience=1, cooldown_steps=8),
        log_fn=events.append,
        start_step=steps,
        warmup_steps=steps,
    )
    assert ramp[-1] == base == target.get_last_lr()[0]  # no jump at the hand-over
    assert (events[0]["event"], events[0]["warmup_steps"], events[0]["step"]) == ("adaptive_lr_init", 7, 7)
    feed(target, *[2.0] * 8)
    assert [event["step"] for event in adjustments(events)] == [15]  # global step; cooldown from the hand-over
    assert warmup_lr(base, 0, 0) == base
    assert all(warmup_lr(lr / 7, n - 1, n) == lr / 7 for lr in range(1, 50) for n in range(1, 50))


def test_events_carry_the_keys_of_the_contract() -> None:
    target, events = scheduler(patience=1)
    feed(target, *[2.0] * 8)
    target.log_summary()
    init, change, summary = events
    common = {"event", "ts", "step"}
    assert set(init) == common | {
        *("initial_lr", "lr_min", "lr_max", "use_moe", "window_size", "warmup_steps"),
    }
    assert set(change) == common | {"decision", "old_lr", "new_lr", "change_pct", "reason", "metrics"}
    assert set(change["metrics"]) == {"loss_avg", "improvement_rate", "cv", "trend"}
    assert change["change_pct"] == -30.0
    assert {key: summary[key] for key in target.get_summary()} == {
        "total_steps": 8,
        "adjustments_made": 1,
        "final_lr": target.get_lr(),
        "lr_history_length": 2,
    }
    assert list(target.lr_history) == pytest.approx([1e-3, 7e-4])


def test_windows_are_averaged_over_ranks_before_the_decision() -> None:
    calls: list[list[float]] = []

    def averaged(losses: list[float]) -> list[float]:
        calls.append(losses)
        return [(loss + 10.0) / 2 for loss in losses]

    config = AdaptiveLRConfig(window_size=2, cooldown_steps=0)
    target = AdaptiveLRScheduler(optimizer(), config, reduce_fn=averaged)
    feed(target, 2.0, 4.0, 6.0)
    assert (calls, target.state_dict()["previous_avg"]) == ([[2.0, 4.0]], 6.5)


def test_a_window_without_a_finite_mean_counts_as_a_non_finite_loss() -> None:
    target, events = scheduler(window_size=2)
    feed(target, 2.0, 2.0, -1.7e308, 1.7e308)
    assert [event["reason"] for event in adjustments(events)] == ["non_finite_loss"]
    assert target.state_dict()["previous_avg"] == 2.0


def test_new_settings_win_over_saved_ones() -> None:
    old, _ = scheduler(window_size=8, patience=1)
    feed(old, *[2.0] * 16, 1.0, 2.0, 3.0, 4.0, 5.0)
    new, events = scheduler(window_size=4, lr_min=9e-4, patience=77)
    new.load_state_dict(old.state_dict())
    assert (new.config.patience, new.current_lr, new.total_steps) == (77, 9e-4, 21)
    assert new.state_dict()["window"] == [3.0, 4.0, 5.0]
    restored = events[-1]
    assert (restored["event"], restored["from_step"]) == ("adaptive_lr_restored", 21)
    assert (restored["current_lr"], restored["window_fill"]) == (9e-4, 3)
    assert new.get_last_lr() == [9e-4]
    assert list(new.lr_history) == [*old.lr_history, 9e-4]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("version", 99), ("current_lr", math.nan), ("current_lr", "1e-3"), ("total_steps", 1.5)],
        *[("window", [1.0, "x"]), ("window", (1.0,)), ("previous_avg", math.inf), ("plateau_steps", True)],
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(key: str, value: Any) -> None:
    target, _ = scheduler()
    before = target.state_dict()
    with pytest.raises(ValueError, match=key):
        target.load_state_dict({**before, "total_steps": 5, key: value})
    with pytest.raises(ValueError, match=key):
        target.load_state_dict({name: v for name, v in before.items() if name != key})
    assert target.state_dict() == before


def test_the_module_stands_alone() -> None:
    code = (
        "import importlib.util as u, sys, types\n"
        f"spec = u.spec_from_file_location('alone', {adaptive_lr.__file__!r})\n"
        "m = u.module_from_spec(spec); spec.loader.exec_module(m)\n"
        "o = types.SimpleNamespace(param_groups=[{'lr': 1.0}])\n"
        "s = m.AdaptiveLRScheduler(o, m.AdaptiveLRConfig(window_size=2))\n"
        "s.step(1.0); s.step(2.0); s.state_dict()\n"
        "print(sorted(n for n in sys.modules if n.split('.')[0] in ('torch', 'aios', 'numpy')))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
