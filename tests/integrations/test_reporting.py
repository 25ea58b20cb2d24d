"""What an adapter says of the controller's events, and what it counts of them."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from aios.integrations.reporting import Tally
from auto_lr.problems import adamw

NONE_FOUND = {"event": "adaptive_lr_climb", "step": 90, "lr": None, "reason": "the loss did not fall"}
RACED = {"event": "adaptive_lr_race", "step": 90, "lr": 0.01, "reason": "0.01 ended lowest"}


def test_a_climb_without_a_rate_is_no_bad_news_where_a_race_finds_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tally = Tally(None)
    tally(NONE_FOUND)
    tally(RACED)
    (told,) = caplog.messages
    assert told == "AutoLR has found the learning rate 0.01: 0.01 ended lowest"


@pytest.mark.parametrize("after", [{"event": "adaptive_lr_init", "step": 90}, {**RACED, "lr": None}])
def test_where_nothing_finds_one_it_is_said_once(after: dict[str, object], caplog: pytest.LogCaptureFixture) -> None:
    tally = Tally(None)
    for record in (NONE_FOUND, after, {"event": "warmup_complete", "step": 91}):
        tally(record)
    (told,) = caplog.messages
    assert told.startswith("AutoLR has found no learning rate, the optimizer's stays: ")


class Kept(list[object]):
    """Empty at first, and so false."""

    def __call__(self, record: object) -> None:
        self.append(record)


def test_a_log_fn_that_is_false_hears_everything() -> None:
    model, kept, told = nn.Linear(4, 4), Kept(), Kept()
    auto = AutoLR(model, adamw(model), 3, log_fn=kept)
    while not auto.finished:
        model(torch.ones(4)).sum().backward()
        auto.step(1.0)
    Tally(told)(RACED)
    assert kept
    assert told == [RACED]


def test_counters_go_on_after_a_resume() -> None:
    model = nn.Linear(4, 4)
    auto = AutoLR(model, adamw(model), 100)
    first, second = Tally(None), Tally(None)
    for record in (RACED, {"event": "adaptive_lr_adjustment", "step": 95}):
        first(record)
    second.load_state_dict(first.state_dict())
    assert second.numbers(auto, 0.1) == first.numbers(auto, 0.1)
    assert second.numbers(auto, 0.1)["auto_lr/adjustments"] == 1
    assert second.numbers(auto, 0.1)["auto_lr/learning_rate"] == 0.1
    Tally(None).load_state_dict(None)  # a checkpoint of an older version


def test_a_run_that_begins_anew_counts_from_0() -> None:
    model = nn.Linear(4, 4)
    auto = AutoLR(model, adamw(model), 100)
    tally = Tally(None)
    untouched = tally.numbers(auto, 0.1)
    for record in (RACED, {"event": "adaptive_lr_adjustment", "step": 95}):
        tally(record)
    tally.begin()
    assert tally.numbers(auto, 0.1) == untouched
