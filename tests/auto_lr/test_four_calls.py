"""`step(loss)` comes apart into four calls, for frameworks that own clipping, update and clearing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig, StepReport
from auto_lr.problems import Forward, adamw, classifier, fingerprint, train


def train_apart(auto: AutoLR, optimizer: torch.optim.Optimizer, forward: Forward) -> tuple[list[float], list[float]]:
    """As `problems.train`, with the framework's own clipping and update."""
    losses, lrs = [], []
    while not auto.finished:
        lrs.append(auto.before_step())
        loss = forward(auto.batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(auto.model.parameters(), auto.config.max_grad_norm)
        if not bool(auto.skips(loss, norm)):
            optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
        auto.after_step(loss, norm)
    return losses, lrs


def test_apart_or_together_the_run_is_the_same_to_the_last_bit() -> None:
    ends: list[Any] = []
    for apart in (False, True):
        model, forward = classifier()
        optimizer = adamw(model)
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, optimizer, 800, log_fn=events.append)
        auto.search(forward)

        def spoiled(batch: int, forward: Forward = forward) -> Tensor:
            return forward(batch) * (math.nan if batch in (300, 301) else 1.0)

        trained = train_apart(auto, optimizer, spoiled) if apart else train(auto, spoiled)
        skips = [e["step"] for e in events if e.get("rung") == "skip"]
        ends.append(([repr(value) for values in trained for value in values], skips, fingerprint(model, optimizer)))
    assert ends[0] == ends[1]
    assert ends[0][1] == [301, 302]


def test_a_step_is_reported_once_with_what_was_given_along() -> None:
    model, forward = classifier()
    reports: list[StepReport] = []
    auto = AutoLR(model, adamw(model), 20, on_step=reports.append)
    for i in range(20):
        lr = auto.before_step()
        loss = forward(i)
        loss.backward()
        norm = auto.engine.update(loss, auto.skip_above)
        auto.after_step(loss, norm, torch.tensor([float(i), 7.0]), tag=f"step {i}")
        assert reports[-1].launched.lrs == [lr]
    assert [r.launched.step for r in reports] == list(range(1, 21))
    assert [r.launched.tag for r in reports] == [f"step {i}" for i in range(20)]
    assert [r.numbers for r in reports] == [[float(i), 7.0] for i in range(20)]
    assert all(r.grad_norm > 0 for r in reports)


def test_plain_numbers_will_do() -> None:
    model, _ = classifier()
    auto = AutoLR(model, adamw(model), 5)
    for _ in range(5):
        auto.before_step()
        auto.after_step(1.0, 0.5)
    assert auto.finished


def test_calls_out_of_turn_are_refused() -> None:
    model, _ = classifier()
    auto = AutoLR(model, adamw(model), 1)
    with pytest.raises(ValueError, match="after_step comes after before_step"):
        auto.after_step(1.0, 1.0)
    auto.before_step()
    auto.after_step(1.0, 1.0)
    with pytest.raises(ValueError, match="all 1 steps are done"):
        auto.before_step()


@pytest.mark.parametrize("profile", ["auto", "rules", "fixed"])
def test_a_step_that_was_begun_once_is_followed_once(profile: Any) -> None:
    model, _ = classifier()
    reports: list[StepReport] = []
    auto = AutoLR(model, adamw(model), 100, AutoLRConfig(profile=profile), on_step=reports.append)
    auto.before_step()
    auto.after_step(1.0, 1.0)
    for end in (lambda: auto.after_step(1.0, 1.0), auto.pass_step):
        with pytest.raises(ValueError, match="comes after before_step: no step has begun"):
            end()
    assert (auto.step_count, auto.batch, len(reports)) == (1, 1, 1)


def test_a_pause_ends_a_part_and_not_the_run() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 100, AutoLRConfig(anneal_fraction=0.0))
    auto.pause_at(30)
    assert len(train(auto, forward)[0]) == 30
    assert (auto.finished, auto.end) == (True, 100)
    auto.pause_at(1000)
    assert len(train(auto, forward)[0]) == 70


@pytest.mark.parametrize("every", [2, 3])
def test_a_step_without_a_loss_counts_and_changes_nothing_else(every: int) -> None:
    """The climb goes on as if there had been none, at the rates it tells of; what comes with a step comes all the
    same; and a state saved anywhere is gone on with."""
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    optimizer, highest = adamw(model), 0.0
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    auto.search(forward)
    while not auto.finished:
        rate = auto.before_step()
        if auto.step_count % every == 0:
            auto.pass_step()
            AutoLR(model, adamw(model), 400).load_state_dict(auto.state_dict())
            continue
        highest = max(highest, rate if auto.climbing else 0.0)
        loss = forward(auto.batch)
        loss.backward()
        auto.after_step(loss, auto.engine.update(loss, auto.skip_above))
    (climb,) = [event for event in events if event["event"] == "adaptive_lr_climb"]
    (anneal,) = [event for event in events if event["event"] == "adaptive_lr_anneal"]
    assert climb["lr"] is not None
    assert climb["edge"] == pytest.approx(highest)
    assert (auto.step_count, anneal["step"]) == (400, 280)
    assert all(event["step"] <= 400 for event in events)
