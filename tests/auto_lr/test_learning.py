"""Whether a run learns at the rate that its climb has found: who is told so, and whose rate is lowered."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.learning import LESS, MOST_QUESTIONS, SOONEST, Expected, LearningWatch
from aios.auto_lr.search import Found
from auto_lr.problems import fingerprint

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


@given(lengths, st.integers(2, 10))
def test_batches_without_a_finite_loss_do_not_speak_against_a_run_that_learns(steps: int, every: int) -> None:
    losses = [math.nan if step % every == 0 else 2.0 for step in range(steps)]
    assert told_at(watch_over(steps, broke=True), losses) == []


@given(lengths, st.floats(4.0, 6.0))
def test_a_loss_that_stays_after_harm_is_told_again_and_again_but_not_for_ever(steps: int, level: float) -> None:
    told = told_at(watch_over(steps, broke=True), [level] * steps)
    assert 1 <= len(told) <= MOST_QUESTIONS
    assert told[0] == max(SOONEST, round(0.1 * steps))


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


@given(st.booleans(), st.floats(1e-6, 0.9))
def test_a_loss_that_came_near_zero_in_the_climb_can_still_fall_far_enough(broke: bool, lowest: float) -> None:
    expected = Expected.after(found(broke, losses=(1.0, 1.0, 1.0, lowest)))
    assert expected is not None
    assert 0 < expected.ceiling < lowest
    assert expected.ceiling >= 0.7 * lowest


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


class MadeRun:
    """A loop whose losses are made: they fall while the climb goes on, end it as asked, and are then `after`."""

    def __init__(self, after: float, broke: bool = True, use_moe: bool = False, **settings: float) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        config = AutoLRConfig(settings=settings)
        self.auto = AutoLR(self.model, self.optimizer, 300, config, self._note, use_moe=use_moe)
        self.events: list[dict[str, Any]] = []
        self.weights: dict[str, list[Any]] = {}
        """Weights and moments when an event of each kind was last told."""
        self._after, self._broke = after, broke
        self._x, self._highest = torch.randn(16, 4), 0.0

    def _note(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        self.weights[event.get("decision", event["event"])] = self.now()

    def now(self) -> list[Any]:
        """Weights and moments."""
        return fingerprint(self.model, self.optimizer)[:2]

    def told(self, kind: str) -> list[dict[str, Any]]:
        """The events of a kind, or with a decision."""
        return [event for event in self.events if kind in (event["event"], event.get("decision"))]

    def train(self, steps: int = 300) -> None:
        """Train until so many steps have been made."""
        if self.auto.step_count == 0:
            self.auto.search()
        while self.auto.step_count < steps:
            self.optimizer.zero_grad()
            self.model(self._x).square().mean().backward()
            self._highest = max(self._highest, self.auto.before_step())
            loss = 5.0 - min(1.0, self._highest / 1e-2) if self.auto.climbing else self._after
            harm = 3.0 if self._broke and self.auto.climbing and self._highest > 3e-2 else 0.0
            self.optimizer.step()
            self.auto.after_step(loss + harm, 0.1)


@pytest.mark.parametrize("broke", [True, False])
def test_a_loop_whose_loss_is_back_where_it_began_gets_a_lower_rate_only_after_harm(broke: bool) -> None:
    run = MadeRun(5.0, broke)
    run.train()
    (climb,) = run.told("adaptive_lr_climb")
    assert climb["broke"] is broke
    assert {event["cause"] for event in run.told("not_learning")} == {"no_gain"}
    told, cuts = run.told("not_learning"), run.told("learning_decrease")
    assert 1 <= len(told) <= MOST_QUESTIONS
    assert [(cut["step"], cut["new_lr"]) for cut in cuts] == [(e["step"], e["lr"]) for e in told if broke]
    assert all(cut["new_lr"] == pytest.approx(cut["old_lr"] / LESS) for cut in cuts)


@pytest.mark.parametrize(("after", "back"), [(5.0, True), (4.0, False)])
def test_after_a_loss_above_that_of_the_climbs_end_training_goes_on_from_there(after: float, back: bool) -> None:
    """A GRU that had exploded behind the climb stayed bad at any rate. A loss that only rests has harmed nothing."""
    run = MadeRun(after)
    run.train()
    assert [event["back"] for event in run.told("not_learning")] == [back] * MOST_QUESTIONS
    assert (run.weights["learning_decrease"] == run.weights["adaptive_lr_climb"]) is back


@pytest.mark.parametrize("behind", [1, 20])
def test_a_run_taken_up_between_climb_and_judgement_ends_as_the_unbroken_one(behind: int) -> None:
    """The newest checkpoint is what both go back to."""
    run, resumed = MadeRun(5.0), MadeRun(5.0)
    while not run.told("adaptive_lr_climb"):
        run.train(run.auto.step_count + 1)
    run.train(run.auto.step_count + behind)
    run.auto.keep_snapshot()
    saved, at = run.now(), run.auto.step_count
    for name in ("model", "optimizer", "auto"):
        getattr(resumed, name).load_state_dict(copy.deepcopy(getattr(run, name).state_dict()))
    run.train()
    resumed.train()
    assert resumed.told("not_learning")[0]["step"] > at
    assert resumed.weights["learning_decrease"] == run.weights["learning_decrease"] == saved
    assert resumed.now() == run.now()


@pytest.mark.parametrize("given", [{}, {"lr_min": 1e-3}, {"use_moe": True}])
def test_a_rate_that_was_lowered_keeps_to_the_bounds_and_is_the_same_on_resume(given: dict[str, Any]) -> None:
    run, resumed = MadeRun(5.0, **given), MadeRun(5.0, **given)
    while not run.told("not_learning"):
        run.train(run.auto.step_count + 1)
    (told,) = run.told("not_learning")
    assert told["lr"] >= given.get("lr_min", 0.0)
    for name in ("model", "optimizer", "auto"):
        getattr(resumed, name).load_state_dict(copy.deepcopy(getattr(run, name).state_dict()))
    for each in (run, resumed):
        each.train()
    schedulers = [each.auto.control.scheduler for each in (run, resumed) if each.auto.control is not None]
    one, other = (scheduler.config for scheduler in schedulers if scheduler is not None)
    assert (one.lr_min, one.lr_max) == (other.lr_min, other.lr_max)
    assert resumed.now() == run.now()


@pytest.mark.parametrize(("entries", "over"), [({"cuts": 4}, True), ({"cuts": 1}, False), ({"over": True}, True)])
def test_a_saved_watch_is_over_as_it_was_in_states_of_before_too(entries: dict[str, Any], over: bool) -> None:
    """Older versions saved a watch that was over as one of four questions."""
    state = {"reference": 4.0, "ceiling": 3.9, "broke": True, "since": 90, "cuts": 0, "losses": [], **entries}
    watch = LearningWatch.from_state(state, 1000)
    assert watch.over is over
    assert LearningWatch.from_state(watch.state_dict(), 1000).over is over
