"""The rates of a run that goes on, and what it says of them: in a warm-up, after an anneal and inside one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import Forward, adamw, classifier, train

Event = dict[str, Any]
STEPS = 100


def begun(steps: int = STEPS, config: AutoLRConfig | None = None) -> tuple[AutoLR, Forward, list[Event]]:
    """A run at 1e-2 without a search, its problem and its log."""
    model, forward = classifier()
    events: list[Event] = []
    return AutoLR(model, adamw(model, 1e-2), steps, config, events.append), forward, events


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
