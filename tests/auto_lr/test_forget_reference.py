"""The weights were replaced by merged ones: the jump of the loss that comes with them is no spike and no trouble."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.auto_lr.rules import fit_trend, move_onto_trend, summarize_window
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.trouble import Rung, TroubleMonitor
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler

KINDS = [AdaptiveLRScheduler, AutoLRScheduler]


def scheduler_of(kind: type[AdaptiveLRScheduler], log: list[dict[str, Any]]) -> AdaptiveLRScheduler:
    config = AdaptiveLRConfig(initial_lr=1e-3, window_size=20, cooldown_steps=0)
    return kind(torch.optim.SGD([torch.zeros(1)], lr=1e-3), config, log_fn=log.append)


def losses(level: float, count: int, seed: int = 0) -> list[float]:
    """A gently falling loss with a little noise."""
    noise = random.Random(seed)
    return [level - 0.001 * i + noise.gauss(0, 0.01) for i in range(count)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [True, False])
def test_a_jump_of_the_merge_is_no_spike_and_any_other_is(kind: type[AdaptiveLRScheduler], told: bool) -> None:
    log: list[dict[str, Any]] = []
    scheduler = scheduler_of(kind, log)
    for loss in losses(4.0, 40):
        scheduler.step(loss)
    if told:
        scheduler.forget_reference()
    for loss in losses(6.0, 40, seed=1):
        scheduler.step(loss)
    assert any(r.get("decision") == "spike_decrease" for r in log) is not told


@pytest.mark.parametrize("kind", KINDS)
def test_a_spike_after_the_merge_is_still_seen(kind: type[AdaptiveLRScheduler]) -> None:
    log: list[dict[str, Any]] = []
    scheduler = scheduler_of(kind, log)
    for loss in losses(4.0, 40):
        scheduler.step(loss)
    scheduler.forget_reference()
    for loss in [*losses(3.0, 20, seed=1), *losses(5.0, 20, seed=2)]:
        scheduler.step(loss)
    assert [r["decision"] for r in log if "decision" in r][-1] == "spike_decrease"


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_state_knows_of_the_merge(kind: type[AdaptiveLRScheduler]) -> None:
    unbroken_log: list[dict[str, Any]] = []
    resumed_log: list[dict[str, Any]] = []
    unbroken, resumed = scheduler_of(kind, unbroken_log), scheduler_of(kind, resumed_log)
    for loss in losses(4.0, 50):
        unbroken.step(loss)
    unbroken.forget_reference()
    resumed.load_state_dict(unbroken.state_dict())
    for loss in losses(6.0, 60, seed=1):
        unbroken.step(loss)
        resumed.step(loss)
    assert resumed.state_dict() == unbroken.state_dict()


@settings(deadline=None)
@given(st.floats(-0.01, 0.01), st.floats(-3, 3), st.integers(1, 5))
def test_windows_moved_onto_the_trend_keep_slope_and_noise(slope: float, jump: float, count: int) -> None:
    def window(number: int, jump: float = 0.0) -> Any:
        return summarize_window([4 + jump + slope * (20 * number + i) + 0.01 * (-1) ** i for i in range(20)])

    before, newest = [window(n) for n in range(count)], window(count, jump)
    moved = move_onto_trend(before, newest)
    alike = [window(n, jump) for n in range(count)]  # what the windows would have been with the merged weights
    assert [w.squares for w in moved] == [w.squares for w in before]
    for one, other in zip(moved, alike, strict=True):
        assert one.mean == pytest.approx(other.mean, abs=0.02)
    assert fit_trend([*moved, newest]).slope == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("told", [True, False])
def test_a_jump_of_the_merge_is_no_trouble(told: bool) -> None:
    monitor = TroubleMonitor()
    for step, loss in enumerate(losses(4.0, 100)):
        monitor.observe(step, loss, 1.0, False)
    if told:
        monitor.forget_level()
    after = [monitor.observe(100 + i, loss, 1.0, False) for i, loss in enumerate(losses(6.0, 100, seed=1))]
    assert any(verdict.reason for verdict in after) is not told


def test_trouble_after_the_merge_is_still_seen() -> None:
    monitor = TroubleMonitor()
    for step, loss in enumerate(losses(4.0, 100)):
        monitor.observe(step, loss, 1.0, False)
    monitor.forget_level()
    for step, loss in enumerate(losses(6.0, 20, seed=1)):
        assert not monitor.observe(100 + step, loss, 1.0, False).reason
    after = [monitor.observe(120 + i, 12.0, 30.0, False).rung for i in range(100)]
    assert Rung.CUT in after
