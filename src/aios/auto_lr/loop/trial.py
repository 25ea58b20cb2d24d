"""Any model as a `Trial`: for the range test, and for a higher rate; both taken back."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from aios.auto_lr.loop.engine import Engine
from aios.auto_lr.loop.snapshot import Snapshot, seed
from aios.auto_lr.loop.update import check_dense
from aios.auto_lr.param_groups import JoinedGroups, set_learning_rate
from aios.auto_lr.search import RangeTestConfig, RangeTestResult, Trial, run_range_test

Forward = Callable[[int], Tensor]
"""The training loss on the micro-batch of a number, forward only; a pure function of number and weights."""


def search_and_restore(
    trial: Trial, snapshot: Snapshot, total_steps: int, first_batch: int, config: RangeTestConfig
) -> RangeTestResult:
    """The range test, after which `snapshot`, taken before it, is restored: also when the trial raises.

    Where no update moved a weight, nothing was measured, whatever the curve looks like.
    """
    try:
        found = run_range_test(_Paired(trial), total_steps, first_batch, config)
        if found.points and not snapshot.differs():
            reason = "no weight moved at any rate: does the optimizer's step do anything, and hold the model's weights?"
            return replace(found, suggestion=None, lr_min=None, lr_max=None, reason=reason)
        return found
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
    """Trains and evaluates through `forward(micro-batch number) -> loss`; updates as the real training does.

    A batch is `micro_batches` of them, one graph at a time. The loss is read back at every point: the search is
    short, and each point decides where the next one lies.
    """

    def __init__(self, model: nn.Module, engine: Engine, forward: Forward, micro_batches: int = 1) -> None:
        self._model, self._engine = model, engine
        self._forward, self._micro_batches = forward, micro_batches
        self._groups = JoinedGroups(engine.optimizers)

    def evaluate(self, batch: int) -> float:
        """Training loss on the batch; no gradients."""
        with torch.no_grad():
            return sum(float(self._forward(number)) for number in self._numbers(batch)) / self._micro_batches

    def train(self, batch: int, lr: float) -> float:
        """Training loss on the batch, then one clipped update with `lr`."""
        set_learning_rate(self._groups.param_groups, lr)
        total: Tensor | None = None
        for number in self._numbers(batch):
            loss = self._forward(number) / self._micro_batches
            self._engine.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None, "a batch has a micro-batch"
        check_dense(self._model)
        self._engine.update(total, math.inf)
        return float(total)

    def _numbers(self, batch: int) -> range:
        first = batch * self._micro_batches
        return range(first, first + self._micro_batches)
