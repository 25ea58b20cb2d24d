"""Which optimizers scale their updates by second moments of the gradient is read off what they keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from lion_pytorch import Lion
from torch import nn

from aios.auto_lr.loop.second_moments import keep_second_moments

Make = Callable[[Iterable[nn.Parameter]], Any]

SCALED: dict[str, Make] = {
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


UNSCALED: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
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


@pytest.mark.parametrize("kind", SCALED)
def test_those_that_keep_second_moments_are_known(kind: str) -> None:
    assert keep_second_moments([updated(SCALED[kind])])
    assert keep_second_moments([updated(UNSCALED["momentum"]), updated(SCALED[kind])])


def test_those_within_another_optimizer_are_seen() -> None:
    assert keep_second_moments([updated(lambda p: Wrapping(torch.optim.AdamW(p)))])
    assert not keep_second_moments([updated(lambda p: Wrapping(torch.optim.SGD(p, lr=0.01, momentum=0.9)))])


def test_those_of_complex_weights_are_seen() -> None:
    weight = nn.Parameter(torch.ones(3, dtype=torch.complex64))
    optimizer = torch.optim.AdamW([weight])
    (weight * weight.conj()).real.sum().backward()
    optimizer.step()
    assert keep_second_moments([optimizer])


@pytest.mark.parametrize("kind", UNSCALED)
def test_those_that_keep_none_are_known(kind: str) -> None:
    assert not keep_second_moments([updated(UNSCALED[kind])])


def test_before_any_update_there_are_none() -> None:
    assert not keep_second_moments([torch.optim.Adam(nn.Linear(2, 2).parameters())])
