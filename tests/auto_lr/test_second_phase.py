"""A second `AutoLR` on an optimizer: which rate it begins at."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import adamw, classifier, train

STEPS = 60


def grouped(lr: float = 1e-3) -> tuple[Any, Any, torch.optim.Optimizer]:
    model, forward = classifier()
    groups = [{"params": model[0].parameters()}, {"params": model[3].parameters(), "lr": 2 * lr}]  # type: ignore[index]
    return model, forward, torch.optim.AdamW(groups, lr=lr)


def first_rate(model: Any, optimizer: torch.optim.Optimizer) -> list[float]:
    """The rates of the first step of a run at a fixed rate."""
    AutoLR(model, optimizer, STEPS, AutoLRConfig(profile="fixed", warmup_steps=0)).before_step()
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_rate_that_the_user_writes_between_two_is_where_the_second_begins(as_tensor: bool) -> None:
    model, forward = classifier()
    lr: Any = torch.tensor(3e-3) if as_tensor else 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    train(AutoLR(model, optimizer, STEPS), forward)
    assert first_rate(model, optimizer) == pytest.approx([3e-3])
    train(AutoLR(model, optimizer, STEPS), forward)
    if as_tensor:
        lr.fill_(1e-5)
    else:
        optimizer.param_groups[0]["lr"] = 1e-5
    assert first_rate(model, optimizer) == pytest.approx([1e-5])


def test_so_are_ratios_and_what_a_saved_optimizer_was_given_since() -> None:
    model, forward, optimizer = grouped()
    train(AutoLR(model, optimizer, STEPS), forward)
    saved = copy.deepcopy(optimizer.state_dict())
    optimizer = grouped()[2]
    optimizer.load_state_dict(saved)
    for group, rate in zip(optimizer.param_groups, (1e-4, 5e-4), strict=True):
        group["lr"] = rate
    optimizer.param_groups[0]["params"], optimizer.param_groups[1]["params"] = (
        list(model[0].parameters()),
        list(model[3].parameters()),
    )
    assert first_rate(model, optimizer) == pytest.approx([1e-4, 5e-4])


def test_the_base_of_another_schedule_counts_whatever_rate_it_shows() -> None:
    model, _ = classifier()
    optimizer = adamw(model, 1e-2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.1)
    AutoLR(model, optimizer, STEPS, AutoLRConfig(profile="fixed", warmup_steps=0)).before_step()
    optimizer.param_groups[0]["lr"] = 1e-4
    assert first_rate(model, optimizer) == [1e-2]


def test_a_run_that_another_schedule_wrote_into_is_resumed_as_before() -> None:
    """Its rate stands in the saved optimizer; the bases are those that the run began with."""
    ends = []
    for breaks in (False, True):
        model, forward, optimizer = grouped()
        auto = AutoLR(model, optimizer, STEPS)
        while not auto.finished:
            loss = forward(auto.batch)
            loss.backward()
            auto.step(loss)
            for i, group in enumerate(optimizer.param_groups):
                group["lr"] = 0.0123 * (i + 3)
            if breaks and auto.step_count == 20:
                auto.keep_snapshot()
                saved = copy.deepcopy((model.state_dict(), optimizer.state_dict(), auto.state_dict()))
                model, forward, optimizer = grouped()
                model.load_state_dict(saved[0])
                optimizer.load_state_dict(saved[1])
                auto = AutoLR(model, optimizer, STEPS)
                auto.load_state_dict(saved[2])
        ends.append([p.tolist() for p in model.parameters()])
    assert ends[1] == ends[0]
