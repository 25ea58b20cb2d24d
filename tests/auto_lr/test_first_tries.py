"""What a newcomer tries first: a handful of weights, a hundred steps, any optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from auto_lr.problems import train

OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights),
    "momentum": lambda weights: torch.optim.SGD(weights, momentum=0.9),
    "adam": lambda weights: torch.optim.Adam(weights),
    "adamw": lambda weights: torch.optim.AdamW(weights),
    "rmsprop": lambda weights: torch.optim.RMSprop(weights),
}


def fitted(model: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Any], steps: int) -> float:
    """The mean squared error on all batches after a run of `steps` that finds its rate."""

    def loss_of(number: int) -> Tensor:
        inputs, wanted = batches[number % len(batches)]
        return nn.functional.mse_loss(model(inputs), wanted)

    auto = AutoLR(model, optimizer, steps)
    auto.search(loss_of)
    train(auto, loss_of)
    with torch.no_grad():
        return sum(float(loss_of(number)) for number in range(len(batches))) / len(batches)


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))  # with seed 0 the weight begins near zero
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_line_is_fitted_in_a_hundred_steps(kind: str, seed: int, noise: float) -> None:
    torch.manual_seed(seed)
    model, inputs = nn.Linear(1, 1), torch.rand(128, 1) * 2 - 1
    wanted = 3 * inputs + 1 + noise * torch.randn(128, 1)
    batches = [(inputs[i::4], wanted[i::4]) for i in range(4)]
    assert fitted(model, OPTIMIZERS[kind](model.parameters()), batches, 100) < 0.12 + noise**2  # 3 to 5 untrained


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_targets_far_above_what_the_weights_give_are_reached(kind: str) -> None:
    """Noise hides the first falls of the loss, and the climb has to go far above where layers usually train."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 64), nn.ReLU(), nn.Linear(64, 1))
    inputs = torch.randn(400, 5)
    wanted = inputs @ torch.tensor([[10.0], [-50], [30], [20], [5]]) + 200
    batches = [(inputs[i::13], wanted[i::13]) for i in range(13)]
    assert fitted(model, OPTIMIZERS[kind](model.parameters()), batches, 300) < 20  # 44,000 untrained
