"""`AutoLR` and `aios hrm-hf train`, given the same losses and the same updates, take the same decisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from training_process import AUTO_STEPS, read_log

KEYS = ("step", "decision", "old_lr", "new_lr", "reason")


def replayed(log: list[dict[str, Any]], steps: int) -> tuple[list[float], list[dict[str, Any]]]:
    """LR of each step and the events of an `AutoLR` that sees what the trainer saw.

    Its weight moves, at each update, in the proportion in which the trainer's weights moved at the first ones.
    """
    model = nn.Linear(1, 1, bias=False).double()  # small changes are rounded otherwise
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.95))
    model(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
    optimizer.step()  # only now can it be seen what it keeps
    optimizer.zero_grad()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, steps, log_fn=events.append)
    auto.search()
    records = [r for r in log if r["event"] == "train"]
    (climb,) = (r for r in log if r["event"] == "adaptive_lr_climb")
    strength = auto.config.climb.first_change / climb["curve"][0][0]
    lrs = []
    for record in records:
        lrs.append(auto.before_step())
        with torch.no_grad():
            model.weight.mul_(1 + strength * lrs[-1])
        auto.after_step(record["ce"], record["grad_norm"])
    assert auto.finished
    return lrs, events


def decisions(events: list[dict[str, Any]]) -> list[list[Any]]:
    changes = [[e[key] for key in KEYS] for e in events if e["event"] == "adaptive_lr_adjustment"]
    phases = [[e["event"], e["step"]] for e in events if e["event"] in ("warmup_complete", "adaptive_lr_anneal")]
    init = [[e[key] for key in ("initial_lr", "lr_min", "lr_max", "window_size", "warmup_steps")]
            for e in events if e["event"] == "adaptive_lr_init"]  # fmt: skip
    return [*init, *changes, *phases]


def test_the_trainer_and_auto_lr_take_the_same_decisions_at_the_same_steps(climbed: Path) -> None:
    log = read_log(climbed / "brain")
    lrs, events = replayed(log, AUTO_STEPS)
    (ours,), (theirs,) = ([r for r in each if r["event"] == "adaptive_lr_climb"] for each in (events, log))
    assert [ours["step"], ours["search_steps"]] == [theirs["step"], theirs["search_steps"]]
    assert [ours["lr"], ours["edge"]] == pytest.approx([theirs["lr"], theirs["edge"]])
    for decided, recorded in zip(decisions(events), decisions(log), strict=True):
        assert decided == [pytest.approx(value) if isinstance(value, float) else value for value in recorded]
    assert lrs == pytest.approx([r["lr"] for r in log if r["event"] == "train"])
    assert [r["step"] for r in log if r["event"] == "train"] == list(range(1, AUTO_STEPS + 1))
