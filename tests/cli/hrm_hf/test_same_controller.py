"""`AutoLR` and `aios hrm-hf train`, given the same search curve and the same losses, take the same decisions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from training_process import read_log, train

KEYS = ("step", "decision", "old_lr", "new_lr", "reason")


class Recorded:
    """Plays back what the trainer's search and trials saw; the weight moves, as one does that is trained."""

    def __init__(self, weight: nn.Parameter, log: list[dict[str, Any]]) -> None:
        self._weight = weight
        (search,) = (r for r in log if r["event"] == "adaptive_lr_search")
        tried = [loss for r in log if r["event"] == "adaptive_lr_challenge" for loss in r["losses"]]
        self._references = [reference for _, _, reference in search["curve"]]
        self._losses: Iterator[float] = iter([*(loss for _, loss, _ in search["curve"]), *tried])

    def evaluate(self, batch: int) -> float:
        return self._references[batch] if batch < len(self._references) else self._references[-1]

    def train(self, batch: int, lr: float) -> float:
        with torch.no_grad():
            self._weight.add_(1.0)
        loss = next(self._losses)
        return float("nan") if loss is None else loss


def replayed(log: list[dict[str, Any]], steps: int) -> tuple[list[float], list[dict[str, Any]]]:
    """LR of each step and the events of an `AutoLR` that sees what the trainer saw."""
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, betas=(0.9, 0.95))
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, steps, log_fn=events.append)
    auto.search(Recorded(model.weight, log))
    lrs = []
    for record in (r for r in log if r["event"] == "train"):
        lrs.append(auto.before_step())
        auto.after_step(record["ce"], record["grad_norm"])
    assert auto.finished
    return lrs, events


def decisions(events: list[dict[str, Any]]) -> list[list[Any]]:
    changes = [[e[key] for key in KEYS] for e in events if e["event"] == "adaptive_lr_adjustment"]
    phases = [[e["event"], e["step"]] for e in events if e["event"] in ("warmup_complete", "adaptive_lr_anneal")]
    init = [[e[key] for key in ("initial_lr", "lr_min", "lr_max", "window_size", "warmup_steps")]
            for e in events if e["event"] == "adaptive_lr_init"]  # fmt: skip
    return [*init, *changes, *phases]


@pytest.mark.parametrize("steps", [300, pytest.param(1000, marks=pytest.mark.slow)], ids=["searched", "with a trial"])
def test_the_trainer_and_auto_lr_take_the_same_decisions_at_the_same_steps(tmp_path: Path, steps: int) -> None:
    train(tmp_path, "--adaptive-lr-profile=auto", f"--steps={steps}", "--save-every=0", "--eval-every=0")
    log = read_log(tmp_path / "brain")
    lrs, events = replayed(log, steps)
    assert bool([e for e in events if e["event"] == "adaptive_lr_challenge"]) is (steps == 1000)
    assert decisions(events) == decisions(log)
    assert lrs == [r["lr"] for r in log if r["event"] == "train"]
    assert [r["step"] for r in log if r["event"] == "train"] == list(range(1, steps + 1))
