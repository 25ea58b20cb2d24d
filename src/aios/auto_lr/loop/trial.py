"""Any model as a `Trial`, for what is tried and taken back."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from aios.auto_lr.climb import Climb
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.loop.engine import Engine, overflowed
from aios.auto_lr.loop.random_state import seed
from aios.auto_lr.loop.settling import settled_part
from aios.auto_lr.loop.update import check_dense
from aios.auto_lr.loop.weights import ChangeMeter
from aios.auto_lr.param_groups import JoinedGroups, set_learning_rate
from aios.auto_lr.search import Trial

MOST_OVERFLOWS = 40
"""Most retries in a row: from 2^24 the loss scale is far below 1 then."""
Forward = Callable[[int], Tensor]
"""The training loss on the micro-batch of a number, forward only; a pure function of number and weights."""
Backward = Callable[[Tensor], object]
"""In place of `loss.backward()`: leaves the gradients of a loss, scaled where the loss is."""
Run = Callable[[int, bool], Tensor]
"""`run(batch, learns)`: numbers of an optimizer step, means over all its micro-batches and workers.

Where it `learns` it leaves the gradients, and the first number is the loss; else it returns just the one that is
followed."""
_NO_GRAPH = "does not require grad"
"""In torch's error for a gradient that is asked for where none are kept."""


def update_once(engine: Engine, gradients: Callable[[], Tensor]) -> Tensor:
    """One update by what `gradients` leaves, which returns numbers, the loss first; returns them.

    On overflow, lower the loss scale and retry: each trial begins at the scale from before the search.
    """
    for _ in range(MOST_OVERFLOWS):
        numbers = gradients()
        loss = numbers.reshape(-1)[0]
        if not overflowed(engine, loss, engine.update(loss, math.inf)):
            break
    return numbers


class Unit(NamedTuple):
    """How strongly an optimizer acts."""

    change: float | None
    """Change of the weights (RMS over RMS) by an update, per unit of learning rate; None: nothing moves."""
    steps: int
    """Updates that finding it took."""


def find_unit(trial: Trial, engine: Engine, restore: Callable[[], object], batch: int, config: ClimbConfig) -> Unit:
    """What one update does to the weights, found as a climb finds where to begin; each update is taken back."""
    climb, meter, tried = Climb.for_run(1, config), ChangeMeter(engine.weights, engine.device), 0
    while climb.unit is None and climb.ended is None:
        lr = climb.next_lr()
        meter.mark()
        try:
            loss = trial.train(batch, lr)
            change = float(engine.agreed(meter.measure() * settled_part(engine.optimizers)))
        finally:
            restore()
        climb.observe(lr, loss, change)
        tried += 1
    return Unit(climb.unit, tried)


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


class EngineTrial:
    """A `Trial` of what `run` computes of `model` and `engine` updates, as the real training does.

    `followed` is the place, among the numbers of `run`, of the one to return. It is read back at every step: trials
    are short. Within `torch.autocast` every batch meets the weights of now, not those that it has cast before. Raises
    ValueError where a step leaves sparse gradients.
    """

    def __init__(self, model: nn.Module, engine: Engine, run: Run, followed: int = 0) -> None:
        self._model, self._engine, self._run, self._followed = model, engine, run, followed
        self._groups = JoinedGroups(engine.optimizers)
        self._differentiates = False  # whether the loss itself is made from gradients, such as those of its inputs

    def evaluate(self, batch: int) -> float:
        """Training loss on the batch; leaves no gradients."""
        torch.clear_autocast_cache()
        if not self._differentiates:
            try:
                with torch.no_grad():
                    return float(self._run(batch, False))
            except RuntimeError as error:
                if _NO_GRAPH not in str(error):
                    raise
                self._differentiates = True
        return float(self._run(batch, False).detach())

    def train(self, batch: int, lr: float) -> float:
        """Training loss on the batch, then one clipped update with `lr`."""
        torch.clear_autocast_cache()
        set_learning_rate(self._groups.param_groups, lr)
        numbers = update_once(self._engine, lambda: self._learn(batch))
        return float(numbers.reshape(-1)[self._followed])

    def _learn(self, batch: int) -> Tensor:
        numbers = self._run(batch, True).detach()
        check_dense(self._model)
        return numbers


def run_of(forward: Forward, micro_batches: int, backward: Backward, mean: Callable[[Tensor], Tensor]) -> Run:
    """A batch through `forward`, as `micro_batches` of them, one graph at a time.

    `backward` takes the loss of one of them and adds its part of the gradient; `mean` averages over the workers.
    """

    def run(batch: int, learns: bool) -> Tensor:
        """As `Run`."""
        losses = list[Tensor]()
        for number in range(batch * micro_batches, (batch + 1) * micro_batches):
            loss = forward(number)
            if learns:
                backward(loss)
            losses.append(loss.detach().float())
        return mean(torch.stack(losses).mean())

    return run


def as_trial(
    how: Forward | Trial | None, model: nn.Module, engine: Engine, micro_batches: int, backward: Backward | None
) -> Trial | None:
    """`how` as a trial: it may be one, or the loss by number, with the engine's `backward` or another; or nothing."""
    if how is None or (hasattr(how, "evaluate") and hasattr(how, "train")):
        return how
    learn = backward or engine.backward
    run = run_of(how, micro_batches, lambda loss: learn(loss / micro_batches), engine.agreed)
    return EngineTrial(model, engine, run)
