"""The rates of a run that goes on, and what it says of them: in a warm-up, after an anneal and inside one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import Forward, adamw, classifier, train

Event = dict[str, Any]
STEPS = 100
STILL = {"increase_factor": 1.0, "decrease_factor": 1.0, "spike_factor": 1.0}
"""Settings under which no decision changes the rate."""


def begun(steps: int = STEPS, config: AutoLRConfig | None = None) -> tuple[AutoLR, Forward, list[Event]]:
    """A run at 1e-2 without a search, its problem and its log; unless `config` says more, its rate stays there."""
    model, forward = classifier()
    events: list[Event] = []
    return (
        AutoLR(model, adamw(model, 1e-2), steps, config or AutoLRConfig(settings=STILL), events.append),
        forward,
        events,
    )


def gone_on(
    state: Mapping[str, Any], steps: int, config: AutoLRConfig | None = None
) -> tuple[AutoLR, Forward, list[Event]]:
    """A run that goes on from `state`, of other weights: its rates are what is looked at."""
    auto, forward, events = begun(steps, config)
    auto.load_state_dict(state)
    return auto, forward, events


def state_at(step: int, steps: int = STEPS, config: AutoLRConfig | None = None) -> dict[str, Any]:
    """What a run of `steps` had learned after `step`."""
    auto, forward, _ = begun(steps, config)
    auto.pause_at(step)
    train(auto, forward)
    return auto.state_dict()


def of(events: list[Event], name: str) -> list[Event]:
    """The events of that name."""
    return [event for event in events if event["event"] == name]


def broken_in_the_warm_up(auto: AutoLR, forward: Forward, events: list[Event]) -> list[float]:
    """The rates of a run whose loss is a thousandfold from its second step on, until its learning rate is cut."""
    rates = []
    while not of(events, "adaptive_lr_adjustment"):
        loss = forward(auto.batch) * (1000 if rates else 1)
        loss.backward()
        rates.append(auto.step(loss))
    return rates


@pytest.mark.parametrize("resumed", [False, True], ids=["at its begin", "gone on"])
def test_a_cut_in_the_warm_up_holds_from_the_next_step_on(resumed: bool) -> None:
    config = AutoLRConfig(warmup_steps=60)
    auto, forward, events = gone_on(state_at(40, 200, config), 200, config) if resumed else begun(200, config)
    if not resumed:
        auto.pause_at(40)
        train(auto, forward)
        auto.pause_at(200)
    broken_in_the_warm_up(auto, forward, events)
    (cut,) = of(events, "adaptive_lr_adjustment")
    assert cut["step"] < 59
    auto.pause_at(62)
    rates = train(auto, forward)[1]
    assert max(rates) <= cut["new_lr"]
    assert [(e["step"], e["lr"]) for e in of(events, "warmup_complete")] == [(60, cut["new_lr"])]
    assert rates[-2:] == [cut["new_lr"]] * 2


@pytest.mark.parametrize("more", [20, 40, 100])
def test_a_run_that_had_ended_rises_gently_and_is_annealed_over_the_last_part_of_what_is_left(more: int) -> None:
    auto, forward, events = gone_on(state_at(STEPS), STEPS + more)
    rates = train(auto, forward)[1]
    risen, annealed = math.floor(0.05 * more), math.floor(0.3 * more)
    assert rates[:risen] == pytest.approx([1e-2 * (i + 1) / risen for i in range(risen)])
    assert rates[risen : more - annealed] == [1e-2] * (more - annealed - risen)
    assert all(a > b for a, b in pairwise(rates[-annealed - 1 :]))
    (anneal,) = of(events, "adaptive_lr_anneal")
    assert (anneal["start"], anneal["end"]) == (STEPS + more - annealed, STEPS + more)


def test_one_stopped_and_gone_on_with_in_the_added_part_has_the_rates_of_an_unbroken_one() -> None:
    ended = state_at(STEPS)
    unbroken = train(*gone_on(ended, 2 * STEPS)[:2])[1]
    for stop in (STEPS + 2, STEPS + 50, STEPS + 90):
        auto, forward, _ = gone_on(ended, 2 * STEPS)
        auto.pause_at(stop)
        train(auto, forward)
        later, forward, _ = gone_on(auto.state_dict(), 2 * STEPS)
        assert train(later, forward)[1] == unbroken[stop - STEPS :]
        assert later.control is not None
        assert auto.control is not None
        assert later.control.plan.settings.window_size == auto.control.plan.settings.window_size


def test_a_run_asked_to_finish_that_goes_on_to_its_planned_end_rises_gently() -> None:
    auto, forward, _ = begun()
    auto.pause_at(70)
    train(auto, forward)
    auto.finish_now()
    auto.pause_at(STEPS)
    train(auto, forward)
    assert auto.finished
    assert auto.step_count == 80
    rates = train(*gone_on(auto.state_dict(), STEPS)[:2])[1]
    assert rates[0] == 1e-2  # 5 % of 20 steps is one step
    assert rates[:14] == [1e-2] * 14
    assert rates[14] < 1e-2


@pytest.mark.parametrize("steps", [STEPS, STEPS - 5])
def test_one_that_goes_on_inside_its_anneal_says_so(steps: int) -> None:
    auto, forward, events = gone_on(state_at(85), steps)
    (told,) = of(events, "adaptive_lr_anneal")
    assert (told["step"], told["end"], told["reason"]) == (85, steps, "end_of_run")
    (init,) = of(events, "adaptive_lr_init")
    rates = train(auto, forward)[1]
    assert rates[0] == init["initial_lr"]
    assert len(of(events, "adaptive_lr_anneal")) == 1


def test_one_that_goes_on_while_it_finishes_says_so() -> None:
    auto, forward, _ = begun()
    auto.pause_at(40)
    train(auto, forward)
    auto.finish_now()
    auto.pause_at(45)
    train(auto, forward)
    _, _, events = gone_on(auto.state_dict(), STEPS)
    (told,) = of(events, "adaptive_lr_anneal")
    assert (told["step"], told["start"], told["end"], told["reason"]) == (45, 40, 50, "finish_now")


@pytest.mark.parametrize("profile", ["auto", "rules"])
@pytest.mark.parametrize(("stop", "left"), [(5, 15), (50, 0)])
def test_a_run_that_goes_on_announces_the_rate_it_has_come_to(profile: Any, stop: int, left: int) -> None:
    config = AutoLRConfig(profile, warmup_steps=20, settings=STILL)
    state = state_at(stop, STEPS, config)
    learned = state["control"]["scheduler"]["current_lr"] = 7e-3
    state["control"]["scheduler"]["lr_history"].append(learned)
    auto, forward, events = gone_on(state, STEPS, config)
    (init,) = of(events, "adaptive_lr_init")
    assert (init["initial_lr"], init["warmup_steps"]) == (learned, left)
    rates = train(auto, forward)[1]
    assert rates[left] == learned
    assert [e["lr"] for e in of(events, "warmup_complete")] == [learned] * (left > 0)


def test_a_run_that_goes_on_under_settings_that_allow_less_says_what_it_had_come_to() -> None:
    config = AutoLRConfig("rules", settings={"lr_max": 1e-3})
    auto, forward, events = gone_on(state_at(50), STEPS, config)
    (init,) = of(events, "adaptive_lr_init")
    assert (init["requested_lr"], init["initial_lr"], init["lr_max"]) == (1e-2, 1e-3, 1e-3)
    assert train(auto, forward)[1][0] == 1e-3
