"""A search result that does not hold is noticed just after the warm-up, and training begins anew, lower."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from aios.auto_lr.api import AutoLR, AutoLRConfig
from aios.auto_lr.recovery import VERIFY_STEPS
from aios.auto_lr.search import RangePoint, RangeTestConfig, RangeTestResult
from aios.auto_lr.verification import MAX_RESTARTS, SHARE_OF_RAMP, Expectation
from auto_lr.problems import Forward, adamw, classifier, sgd

TOO_HOT = AutoLRConfig(range_test=RangeTestConfig(trained_safety=0.01, lag=0, clear_drop=10.0))
"""A search that suggests a hundred times the rate at which training broke."""


def train(auto: AutoLR, forward: Forward) -> list[float]:
    """The losses of a whole run."""
    losses = []
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        losses.append(float(loss.detach()))
    return losses


def restarts(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events of a search that was refuted."""
    return [e for e in events if e.get("decision") == "search_decrease"]


def found(*points: tuple[float, float]) -> RangeTestResult:
    """A search with these (loss, reference) pairs."""
    curve = tuple(RangePoint(1e-4 * 2**i, loss, reference) for i, (loss, reference) in enumerate(points))
    return RangeTestResult(curve, 1e-3, 1e-5, 1e-3, "", 20)


# --- what is expected ---


def test_a_model_from_scratch_has_to_reach_a_part_of_the_fall_of_the_ramp() -> None:
    expectation = Expectation.from_search(found((5.0, 5.0), (4.0, 5.0), (3.0, 5.0), (9.0, 5.0)), clear_drop=0.1)

    assert expectation.ceiling == pytest.approx(5 - 2 * SHARE_OF_RAMP)
    assert expectation.met([4.4] * VERIFY_STEPS)
    assert not expectation.met([4.6] * VERIFY_STEPS)


def test_a_trained_model_only_has_to_stay_about_where_it_was() -> None:
    expectation = Expectation.from_search(found((2.0, 2.0), (2.19, 2.2), (2.0, 2.0), (9.0, 2.2)), clear_drop=0.1)

    assert expectation.met([2.2] * VERIFY_STEPS)
    assert not expectation.met([2.6] * VERIFY_STEPS)


def test_one_bad_batch_is_not_held_against_the_rate_but_many_are() -> None:
    expectation = Expectation(4.0)

    for bad in (math.nan, math.inf, 1e6):
        assert expectation.met([3.0] * 19 + [bad])
        assert not expectation.met([3.0] * 9 + [bad] * 11)


# --- in training ---


@pytest.mark.parametrize("make", [adamw, sgd])
def test_a_rate_far_too_hot_is_refuted_and_training_begins_anew_lower(make: Any) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, make(model), 1000, TOO_HOT, events.append)

    suggestion = auto.search(forward).suggestion
    losses = train(auto, forward)

    lowered = restarts(events)
    assert suggestion is not None
    assert len(lowered) >= 1
    assert lowered[0]["old_lr"] == pytest.approx(suggestion)
    assert all(e["new_lr"] < e["old_lr"] for e in lowered)
    assert lowered[-1]["new_lr"] < suggestion / 3
    assert "search_refuted" in lowered[0]["reason"]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(losses[-20:]) / 20 < 0.5 * losses[0]


def test_a_restart_goes_back_to_the_weights_of_the_start_and_on_to_new_batches() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 1000, TOO_HOT, events.append)
    start = [p.detach().clone() for p in model.parameters()]
    auto.search(forward)

    while not restarts(events):
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        assert not auto.finished

    assert all(torch.equal(p, s) for p, s in zip(model.parameters(), start, strict=True))
    assert auto.batch == auto.step_count
    assert auto.search_steps == sum(event.get("search_steps", 0) for event in events) > 0


def test_a_search_that_holds_is_not_refuted() -> None:
    for seed in range(3):
        model, forward = classifier(seed)
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, adamw(model), 400, log_fn=events.append)
        assert auto.search(forward).suggestion is not None
        train(auto, forward)

        assert restarts(events) == []


def test_a_loss_that_no_rate_brings_down_ends_the_restarts() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 600, log_fn=events.append)

    assert auto.search(forward).suggestion is not None

    def scaled(batch: int) -> Tensor:
        return 10 * forward(batch)

    train(auto, scaled)

    assert 2 <= len(restarts(events)) <= 2 * MAX_RESTARTS
    assert auto.finished
