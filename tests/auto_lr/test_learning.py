"""Whether a run learns at the rate that its climb has found: who is told so, and whose rate is lowered."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aios.auto_lr import AutoLR
from aios.auto_lr.learning import LESS, MOST_CUTS, Expected, LearningWatch
from aios.auto_lr.search import Found

CURVE = (5.0, 5.0, 5.0, 4.5, 4.0, 4.2)
lengths = st.integers(100, 2000)


def found(broke: bool = True, losses: tuple[float, ...] = CURVE, lr: float | None = 1e-2) -> Found:
    return Found("climb", (1e-3,) * len(losses), losses, lr, 1e-2, "", 0, broke)


def watch_over(steps: int, broke: bool) -> LearningWatch:
    expected = Expected.after(found(broke))
    assert expected is not None
    return LearningWatch(expected, 0, steps)


def told_at(watch: LearningWatch, losses: list[float]) -> list[int]:
    """Steps at which the watch said that nothing is learned; each time the rate is taken to be lowered."""
    told = []
    for step, loss in enumerate(losses, start=1):
        if watch.observe(step, loss) is not None:
            told.append(step)
            watch.go_on(step)
    return told


@given(lengths, st.floats(4.0, 6.0))
def test_a_loss_that_stays_after_harm_is_told_again_and_again_but_not_for_ever(steps: int, level: float) -> None:
    told = told_at(watch_over(steps, broke=True), [level] * steps)
    assert 1 <= len(told) <= MOST_CUTS
    assert told[0] <= math.ceil(0.1 * steps) + 1


@given(lengths, st.floats(4.0, 6.0))
def test_where_higher_rates_did_no_harm_it_is_told_once_and_late(steps: int, level: float) -> None:
    """Nothing is at stake, and a steady rate takes its time to come below a loss whose rate had fallen to zero."""
    (told,) = told_at(watch_over(steps, broke=False), [level] * steps)
    assert told >= math.floor(0.3 * steps)


@given(lengths)
def test_a_loss_that_comes_down_late_is_no_alarm_where_nothing_broke(steps: int) -> None:
    assert told_at(watch_over(steps, broke=False), [4.5 if step < 0.2 * steps else 3.9 for step in range(steps)]) == []


@given(lengths, st.booleans(), st.floats(-10, 3.9))
def test_a_run_that_learns_hears_nothing(steps: int, broke: bool, level: float) -> None:
    assert told_at(watch_over(steps, broke), [level] * steps) == []


@given(lengths, st.booleans(), st.integers(1, 300))
def test_gone_on_with_from_any_step_it_says_the_same(steps: int, broke: bool, at: int) -> None:
    losses = [5.0 if step % 3 else 4.2 for step in range(steps)]
    whole, broken = watch_over(steps, broke), watch_over(steps, broke)
    for step, loss in enumerate(losses, start=1):
        assert whole.observe(step, loss) == broken.observe(step, loss)
        if step == at:
            broken = LearningWatch.from_state(broken.state_dict(), steps)
    assert whole.state_dict() == broken.state_dict()


@pytest.mark.parametrize("what", [found(lr=None), Found("race", (1e-3,), (5.0,), 1e-3, None, "", 8)])
def test_nothing_is_expected_where_no_climb_has_found_a_rate(what: Found) -> None:
    assert Expected.after(what) is None


@pytest.mark.parametrize("broke", [True, False])
def test_a_loop_whose_loss_is_back_where_it_began_gets_a_lower_rate_only_after_harm(broke: bool) -> None:
    """The loss is made: it falls while the climb goes on, ends as asked, and then stays at its first level."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    events: list[dict[str, Any]] = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    auto = AutoLR(model, optimizer, steps=300, log_fn=events.append)
    auto.search()
    x, highest = torch.randn(16, 4), 0.0
    while not auto.finished:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        highest = max(highest, auto.before_step())
        fall = min(1.0, highest / 1e-2) if auto.climbing else 0.0
        harm = 3.0 if broke and auto.climbing and highest > 3e-2 else 0.0
        optimizer.step()
        auto.after_step(5.0 - fall + harm, 0.1)
    (climb,) = [event for event in events if event["event"] == "adaptive_lr_climb"]
    assert climb["broke"] is broke
    told = [event for event in events if event["event"] == "not_learning"]
    cuts = [event for event in events if event.get("decision") == "learning_decrease"]
    assert 1 <= len(told) <= MOST_CUTS
    assert [(cut["step"], cut["new_lr"]) for cut in cuts] == [(e["step"], e["lr"]) for e in told if broke]
    assert all(cut["new_lr"] == pytest.approx(cut["old_lr"] / LESS) for cut in cuts)
