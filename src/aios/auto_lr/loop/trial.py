"""Any model as a `Trial`: for the range test, and for a higher rate; both taken back."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from aios.auto_lr.loop.snapshot import Snapshot, seed
from aios.auto_lr.loop.update import check_dense, set_learning_rate
from aios.auto_lr.search import RangeTestConfig, RangeTestResult, Trial, run_range_test


def search_and_restore(
    trial: Trial, snapshot: Snapshot, total_steps: int, first_batch: int, config: RangeTestConfig
) -> RangeTestResult:
    """The range test, after which `snapshot`, taken before it, is restored: also when the trial raises."""
    try:
        return run_range_test(_Paired(trial), total_steps, first_batch, config)
    finally:
        snapshot.restore()


class _Paired:
    """A trial that meets a batch with the same random numbers every time.

    Else dropout alone would make a difference between the loss on a batch with and without training, and the ramp
    would take that for a response to a rate that is far too low.
    """

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    def evaluate(self, batch: int) -> float:
        """As `Trial.evaluate`."""
        seed(batch)
        return self._trial.evaluate(batch)

    def train(self, batch: int, lr: float) -> float:
        """As `Trial.train`."""
        seed(batch)
        return self._trial.train(batch, lr)


def train_and_restore(trial: Trial, snapshot: Snapshot, first_batch: int, lr: float, steps: int) -> list[float]:
    """Losses of `steps` updates with `lr`, up to the first that is not finite; `snapshot` is restored at any rate."""
    losses: list[float] = []
    try:
        while len(losses) < steps and all(map(math.isfinite, losses[-1:])):
            losses.append(trial.train(first_batch + len(losses), lr))
    finally:
        snapshot.restore()
    return losses


class ClosureTrial:
    """Trains and evaluates through `forward(batch number) -> loss`; clips like the real training.

    The loss is read back at every point: the search is short, and each point decides where the next one lies.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[int], Tensor], max_grad_norm: float
    ) -> None:
        self._model, self._optimizer = model, optimizer
        self._forward, self._max_grad_norm = forward, max_grad_norm

    def evaluate(self, batch: int) -> float:
        """Training loss on the batch; no gradients."""
        with torch.no_grad():
            return float(self._forward(batch))

    def train(self, batch: int, lr: float) -> float:
        """Training loss on the batch, then one clipped update with `lr`."""
        set_learning_rate(self._optimizer, lr)
        loss = self._forward(batch)
        loss.backward()
        check_dense(self._model)
        nn.utils.clip_grad_norm_(self._model.parameters(), self._max_grad_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return float(loss.detach())
