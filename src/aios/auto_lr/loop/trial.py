"""Any model as a `Trial`, for what is tried and taken back."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aios.auto_lr.climb import Climb, ClimbConfig
from aios.auto_lr.loop.engine import Engine, overflowed
from aios.auto_lr.loop.snapshot import seed
from aios.auto_lr.loop.update import check_dense
from aios.auto_lr.loop.weights import ChangeMeter
from aios.auto_lr.param_groups import JoinedGroups, set_learning_rate
from aios.auto_lr.search import Trial

MOST_OVERFLOWS = 40
"""So often in a row the loss scale may come down before an update of a trial: from 2^24 it is far below 1 then."""
Forward = Callable[[int], Tensor]
"""The training loss on the micro-batch of a number, forward only; a pure function of number and weights."""


def update_once(engine: Engine, gradients: Callable[[], Tensor]) -> Tensor:
    """One update by what `gradients` leaves, which returns numbers, the loss first; returns them.

    Where the loss scale is too high for it, the update is left out, and the scale comes down: then once more, for what
    is tried and taken back always begins at the scale of before.
    """
    for _ in range(MOST_OVERFLOWS):
        numbers = gradients()
        loss = numbers.reshape(-1)[0]
        if not overflowed(engine, loss, engine.update(loss, math.inf)):
            break
    return numbers


def find_unit(trial: Trial, engine: Engine, restore: Callable[[], object], batch: int, config: ClimbConfig) -> Unit:
    """What one update does to the weights, found as a climb finds where to begin; each update is taken back."""
    climb, meter, tried = Climb(1, config), ChangeMeter(engine.weights), 0
    while climb.unit is None and climb.ended is None:
        lr = climb.next_lr()
        meter.mark()
        try:
            loss = trial.train(batch, lr)
            change = float(engine.agreed(meter.measure()))
        finally:
            restore()
        climb.observe(lr, loss, change)
        tried += 1
    return Unit(climb.unit, tried)


class Unit(NamedTuple):
    """How strongly an optimizer acts."""

    change: float | None
    """Change of the weights (RMS over RMS) by the first update, per unit of learning rate; None: nothing moves."""
    steps: int
    """Updates that finding it took."""


class Paired:
    """A trial that meets a batch with the same random numbers every time.

    Else dropout alone would make a difference between two rates, or between the loss with and without training.
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


class ClosureTrial:
    """Trains and evaluates through `forward(micro-batch number) -> loss`; updates as the real training does.

    A batch is `micro_batches` of them, one graph at a time. The loss is read back at every step: trials are short.
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
        return float(update_once(self._engine, partial(self._gradients, batch)))

    def _gradients(self, batch: int) -> Tensor:
        """Those of the batch; returns its loss."""
        total: Tensor | None = None
        for number in self._numbers(batch):
            loss = self._forward(number) / self._micro_batches
            self._engine.backward(loss)
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None, "a batch has a micro-batch"
        check_dense(self._model)
        return total

    def _numbers(self, batch: int) -> range:
        first = batch * self._micro_batches
        return range(first, first + self._micro_batches)


def as_trial(how: Forward | Trial | None, model: nn.Module, engine: Engine, micro_batches: int) -> Trial | None:
    """`how` as a trial: it may be one, or the loss by number, or nothing."""
    if how is None or (hasattr(how, "evaluate") and hasattr(how, "train")):
        return how
    return ClosureTrial(model, engine, how, micro_batches)
