"""Models, optimizers and readings that the tests of searches share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from aios.auto_lr import AutoLR
from auto_lr.problems import Forward, adamw, sgd, train


def rmsprop(model: nn.Module, lr: float = 1e-4) -> torch.optim.Optimizer:
    """Its mean of squares starts at zero, so that the first updates are ten times as large as the later ones."""
    return torch.optim.RMSprop(model.parameters(), lr=lr)


def fused(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return adamw(model, lr, fused=True)


class Wrapped(torch.optim.Optimizer):
    """Moves an average of the weights along with them, in an attribute that torch knows nothing of."""

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        super().__init__(model.parameters(), {"lr": lr})
        self.inner = adamw(model, lr)
        self.param_groups = self.inner.param_groups
        self.average = [p.detach().clone() for p in model.parameters()]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for average, parameter in zip(self.average, self.param_groups[0]["params"], strict=True):
            average.lerp_(parameter.detach(), 0.1)


MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "fused": fused,
    "sgd": sgd,
    "rmsprop": rmsprop,
    "wrapped": Wrapped,
}


def step(auto: AutoLR, forward: Forward) -> tuple[float, float]:
    """One step; its loss and rate."""
    loss = forward(auto.batch)
    loss.backward()
    return float(loss.detach()), auto.step(loss)


def climb_of(auto: AutoLR, forward: Forward, events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the climb of a whole run logged."""
    auto.search(forward)
    train(auto, forward)
    (climb,) = of(events, "adaptive_lr_climb")
    return climb


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]
