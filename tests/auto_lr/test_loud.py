"""What would go wrong in silence is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from aios.auto_lr import AutoLR
from auto_lr.problems import adamw, classifier, fingerprint, sgd, train, trained_classifier


class Asleep(torch.optim.SGD):
    """Its step does nothing, as a wrapper's that waits for more calls."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


def test_a_search_in_which_no_weight_moved_says_so() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, Asleep(model.parameters(), lr=0.1), 400, log_fn=events.append)
    auto.search(forward)
    _, lrs = train(auto, forward)
    (climb,) = (e for e in events if e["event"] == "adaptive_lr_climb")
    assert climb["lr"] is None
    assert "no weight moved" in climb["reason"]
    assert climb["step"] <= 12
    assert all(e["lr"] is None for e in events if e["event"] == "adaptive_lr_race")
    assert lrs[100] == pytest.approx(0.1)


def test_a_race_in_which_no_weight_moved_says_so() -> None:
    model, forward = trained_classifier()
    events: list[dict[str, Any]] = []
    found = AutoLR(model, Asleep(model.parameters(), lr=0.1), 400, log_fn=events.append).search(forward)
    assert found is not None
    assert (found.how, found.lr) == ("race", None)
    assert "no weight moved" in events[0]["reason"]


def test_a_leftover_scheduler_that_writes_rates_into_the_groups_is_told_on_once_and_overruled() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    auto.search(forward)
    leftover = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    lrs = []
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        lrs.append(auto.step(loss))
        leftover.step()
    (told,) = (e for e in events if e["event"] == "adaptive_lr_trouble" and "foreign_lr" in e["reason"])
    (init,) = (e for e in events if e["event"] == "adaptive_lr_init")
    assert told["step"] == init["step"] + 1
    assert "param group 0" in told["reason"]

    model, forward = classifier()
    alone = AutoLR(model, adamw(model), 400)
    alone.search(forward)
    assert train(alone, forward)[1] == lrs


def test_decisions_and_rewinds_of_its_own_are_no_foreign_rates() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, torch.optim.RMSprop(model.parameters(), lr=1e-4), 1500, log_fn=events.append)
    auto.search(forward)
    train(auto, lambda i: forward(i) * (float("nan") if 600 <= i < 630 else 1.0))
    assert [e for e in events if e.get("decision") == "rewind_decrease"]
    assert not [e for e in events if "foreign_lr" in str(e.get("reason"))]


def test_a_scaled_loss_is_refused() -> None:
    model, forward = classifier()
    scaler = torch.amp.GradScaler("cpu")
    auto = AutoLR(model, adamw(model), 400)
    auto.search(forward)
    loss = scaler.scale(forward(0))
    loss.backward()
    with pytest.raises(ValueError, match=r"it was scaled; .*AutoLR\(\.\.\., scaler=scaler\)"):
        auto.step(loss)


@pytest.mark.parametrize("make", [adamw, sgd])
def test_with_a_scaler_the_run_is_what_it_is_without(make: Any) -> None:
    ends = []
    for scaled in (False, True):
        model, forward = classifier()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, enabled=scaled)
        auto = AutoLR(model, make(model), 300, scaler=scaler)
        auto.search(forward)
        losses = []
        while not auto.finished:
            loss = forward(auto.batch)
            scaler.scale(loss).backward()
            auto.step(loss)
            losses.append(float(loss.detach()))
        assert auto.control is not None
        ends.append([auto.control.plan.base_lr, *losses])
    assert ends[1] == pytest.approx(ends[0], rel=1e-3)


@pytest.mark.parametrize("learned_before", [False, True], ids=["climb", "race"])
def test_the_state_before_the_first_step_is_that_of_a_run_yet_to_begin(learned_before: bool) -> None:
    def start() -> Any:
        model, forward = trained_classifier() if learned_before else classifier()
        return forward, AutoLR(model, adamw(model), 400)

    forward, auto = start()
    empty = auto.state_dict()
    found = auto.search(forward)
    assert (found is not None) is learned_before
    searched = auto.state_dict()
    straight = train(auto, forward)

    for state in (empty, searched):
        forward, resumed = start()
        resumed.load_state_dict(state)
        if state is empty:
            assert resumed.search(forward) == found
        assert train(resumed, forward) == straight


@pytest.mark.parametrize("before_the_update", [True, False])
def test_a_rate_that_is_written_over_in_the_climb_is_told_at_once(before_the_update: bool) -> None:
    """A warm-up made by hand, between our setting of the rate and the update: what is found then means nothing. What a
    scheduler writes behind the update does no harm."""
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 200, log_fn=events.append)
    auto.search(forward)
    for step in range(20):
        auto.before_step()
        loss = forward(auto.batch)
        loss.backward()
        if before_the_update:
            optimizer.param_groups[0]["lr"] = (step + 1) * 1e-5
        norm = auto.engine.update(loss, auto.skip_above)
        optimizer.param_groups[0]["lr"] = (step + 1) * 1e-5
        auto.after_step(loss, norm)
    told = [(event["step"], event["reason"]) for event in events if event["event"] == "adaptive_lr_trouble"]
    reason = "foreign_lr (1e-05 in place of 1e-08: no rate can be found while something else sets it)"
    assert told == ([(1, reason)] if before_the_update else [])


def told_of_steps(use: Callable[[torch.optim.Optimizer, AutoLR, torch.Tensor], object]) -> list[tuple[int, str]]:
    """(step, reason) of what is said of steps made from outside in 40 steps of a climb, `use` being one of the loop."""
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 300, log_fn=events.append)
    auto.search(forward)
    auto.pause_at(40)
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        use(optimizer, auto, loss)
    return [(event["step"], event["reason"]) for event in events if "foreign_step" in str(event.get("reason"))]


def test_an_optimizer_that_the_loop_steps_besides_is_told_of_once() -> None:
    reason = "foreign_step (an optimizer was stepped outside of AutoLR's steps: leave optimizer.step() to them)"
    assert told_of_steps(lambda optimizer, auto, loss: (optimizer.step(), auto.step(loss))) == [(1, reason)]
    assert told_of_steps(lambda optimizer, auto, loss: (auto.step(loss), optimizer.step())) == [(2, reason)]


def test_steps_of_its_own_and_of_a_framework_are_not_told_of() -> None:
    def four_calls(optimizer: torch.optim.Optimizer, auto: AutoLR, loss: torch.Tensor) -> None:
        auto.before_step()
        norm = torch.nn.utils.clip_grad_norm_(auto.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        auto.after_step(loss, norm)

    assert told_of_steps(lambda optimizer, auto, loss: auto.step(loss)) == []
    assert told_of_steps(four_calls) == []


@pytest.mark.parametrize("search", [True, False])
@pytest.mark.parametrize("case", ["no backward pass", "cleared before", "backward pass behind"])
def test_a_first_step_without_a_gradient_is_refused_with_the_remedy(case: str, search: bool) -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 100)
    if search:
        auto.search(forward)
    loss = forward(0)
    if case == "cleared before":
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    before = fingerprint(model, optimizer)
    with pytest.raises(ValueError, match=r"^no weight has a gradient: .*loss.backward\(\).*optimizer.zero_grad\(\) to"):
        auto.step(loss)
    assert fingerprint(model, optimizer) == before
    assert auto.step_count == 0
