"""The momentum of optimizers that make their updates from one alone, told by what they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn

from aios.auto_lr.loop.momentum import momentum_alone

Make = Callable[[Iterable[nn.Parameter]], Any]

NOT_ALONE: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
    "asgd": torch.optim.ASGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "adamw without momentum": lambda p: torch.optim.AdamW(p, betas=(0.0, 0.99)),
    "rmsprop": torch.optim.RMSprop,
    "adagrad": torch.optim.Adagrad,
    "adafactor": torch.optim.Adafactor,
    "nadam": torch.optim.NAdam,
}


class Wrapping(torch.optim.Optimizer):
    """Steps through another optimizer, whose param groups are its own."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        super().__init__([p for group in inner.param_groups for p in group["params"]], {})
        self.inner, self.param_groups = inner, inner.param_groups
        self.outer = self  # some do, and it is no further one

    def step(self, closure: Any = None) -> None:
        self.inner.step()


class HeavyBall(torch.optim.Optimizer):
    """Has a name of its own for its momentum."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 0.01, "inertia": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                speed = self.state[weight].setdefault("speed", torch.zeros_like(weight))
                weight.add_(speed.mul_(group["inertia"]).add_(weight.grad), alpha=-group["lr"])


ALONE: dict[str, tuple[Make, float]] = {
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9), 0.9),
    "nesterov": (lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.5, nesterov=True), 0.5),
    "lion": (lambda p: Lion(p, lr=1e-3, betas=(0.95, 0.98)), 0.95),
    "by another name": (HeavyBall, 0.9),
    "within another": (lambda p: Wrapping(torch.optim.SGD(p, lr=0.01, momentum=0.8)), 0.8),
}


def updated(make: Make) -> Any:
    """An optimizer that has made some updates."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    optimizer = make(model.parameters())
    for _ in range(3):
        model(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("kind", NOT_ALONE)
def test_second_moments_and_nothing_at_all_are_known(kind: str) -> None:
    assert momentum_alone([updated(NOT_ALONE[kind])]) == 0
    assert momentum_alone([updated(lambda p: Wrapping(NOT_ALONE[kind](p)))]) == 0


@pytest.mark.parametrize("kind", ALONE)
def test_a_momentum_alone_is_known(kind: str) -> None:
    make, momentum = ALONE[kind]
    assert momentum_alone([updated(make)]) == momentum
    assert momentum_alone([updated(make), updated(NOT_ALONE["sgd"])]) == momentum
    assert momentum_alone([updated(make), updated(NOT_ALONE["adam"])]) == 0


def test_those_of_complex_weights_are_seen() -> None:
    for make, momentum in ((torch.optim.AdamW, 0.0), (ALONE["momentum"][0], 0.9)):
        weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        optimizer = make([weight])
        (weight * weight.conj() + weight).real.sum().neg().backward()
        optimizer.step()
        assert momentum_alone([optimizer]) == momentum


def test_before_any_update_there_are_none() -> None:
    assert momentum_alone([torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.01, momentum=0.9)]) == 0
