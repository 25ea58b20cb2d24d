"""A training problem, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

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
