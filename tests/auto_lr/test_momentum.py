"""Which optimizers make their updates from a momentum alone is read off what they keep."""

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


ALONE: dict[str, Make] = {
    "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
    "lion": lambda p: Lion(p, lr=1e-3),
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
    assert not momentum_alone([updated(NOT_ALONE[kind])])


@pytest.mark.parametrize("kind", ALONE)
def test_a_momentum_alone_is_known(kind: str) -> None:
    assert momentum_alone([updated(ALONE[kind])])
    assert momentum_alone([updated(ALONE[kind]), updated(NOT_ALONE["sgd"])])
    assert not momentum_alone([updated(ALONE[kind]), updated(NOT_ALONE["adam"])])


def test_those_within_another_optimizer_are_seen() -> None:
    assert not momentum_alone([updated(lambda p: Wrapping(torch.optim.AdamW(p)))])
    assert momentum_alone([updated(lambda p: Wrapping(torch.optim.SGD(p, lr=0.01, momentum=0.9)))])


def test_those_of_complex_weights_are_seen() -> None:
    for make, alone in ((torch.optim.AdamW, False), (ALONE["momentum"], True)):
        weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
        optimizer = make([weight])
        (weight * weight.conj() + weight).real.sum().neg().backward()
        optimizer.step()
        assert momentum_alone([optimizer]) is alone


def test_before_any_update_there_are_none() -> None:
    assert not momentum_alone([torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.01, momentum=0.9)])
