"""A training problem, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

CACHE = Path(__file__).resolve().parents[3] / "build" / "lr_bench"
"""Data and weights that took long to make."""


@dataclass(frozen=True)
class Problem:
    """One training problem, freshly initialised."""

    model: nn.Module
    """What is trained."""
    loss: Callable[[int], Tensor]
    """Training loss on batch i; a pure function of i and the weights."""
    evaluate: Callable[[], float]
    """Mean loss on held-out data."""
    corrupted: Callable[[int], Tensor] | None = None
    """Training loss on batch i with its data replaced by noise, for the disturbances."""
    changed: Problem | None = None
    """The same model on other data of the same difficulty, for the disturbances."""


def batch_seed(seed: int, index: int) -> int:
    """Of the random numbers that batch `index` of a problem is drawn with."""
    return seed * 1_000_003 + index


Rows = tuple[Tensor, ...]
"""Parts of the data with as many rows each: inputs and labels, say."""
LossOfRows = Callable[[Rows, torch.Generator], Tensor]
"""Their mean loss; the generator gives the noise of a loss that needs some."""


def split(data: Rows, train: int) -> tuple[Rows, Rows]:
    """The first `train` rows, and the others."""
    return tuple(part[:train] for part in data), tuple(part[train:] for part in data)


def on_rows(model: nn.Module, loss_of: LossOfRows, train: Rows, held_out: Rows, seed: int, rows: int) -> Problem:
    """Train `model` on batches of `rows` of `train`, drawn by chance; evaluate it on `held_out`."""

    def loss(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(batch_seed(seed, index))
        chosen = torch.randint(len(train[0]), (rows,), generator=generator)
        return loss_of(tuple(part[chosen] for part in train), generator)

    def evaluate() -> float:
        model.eval()
        with torch.no_grad():
            loss = float(loss_of(held_out, torch.Generator().manual_seed(0)))
        model.train()
        return loss

    model.train()
    return Problem(model, loss, evaluate)
