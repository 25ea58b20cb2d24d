"""A climb carried out on a training loop: its rates, what its updates change, and the way back from its edge."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr.climb import Climb
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.events import LogFn, foreign_lr, foreign_step
from aios.auto_lr.loop.engine import Engine
from aios.auto_lr.loop.momentum import momentum_alone
from aios.auto_lr.loop.settling import settled_part
from aios.auto_lr.loop.weights import ChangeMeter
from aios.auto_lr.param_groups import JoinedGroups, WrittenRates
from aios.auto_lr.recovery import Restorable
from aios.auto_lr.search import Found, Trial


class Climbing:
    """`climb` on the weights that `engine` trains, from optimizer step `step` on.

    Keeps one copy of the training state, to go back to, and one of the weights, to measure the updates by.
    """

    def __init__(self, climb: Climb, engine: Engine, step: int) -> None:
        self.climb = climb
        self._engine, self._meter = engine, ChangeMeter(engine.weights, engine.device)
        self._groups = JoinedGroups(engine.optimizers)
        self._written = WrittenRates()
        self._foreign: tuple[float, float] | None = None  # the rate that an update had, and the one it should have had
        self._under_way = False  # whether a step has begun, and not ended
        self._outside = self._told_outside = False  # whether an optimizer has stepped otherwise; whether that was told
        self.tried = climb.config.first_lr
        """LR of base of the newest step, before the ratios and scales of the param groups."""
        self._kept_at = step
        self._kept: Restorable = engine.snapshot()
        self._candidate: tuple[int, Restorable] | None = None  # kept once the next loss shows that it is sound
        torchs = [optimizer for optimizer in engine.optimizers if isinstance(optimizer, torch.optim.Optimizer)]
        self._hooks = [optimizer.register_step_pre_hook(self._compare) for optimizer in torchs]  # nothing raises now

    @property
    def over(self) -> bool:
        """Whether the climb has ended."""
        return self.climb.ended is not None

    def before_step(self) -> list[float]:
        """Set the rate of the next update; returns that of each param group."""
        self._under_way = True
        self._meter.mark()
        self.tried = self.climb.next_lr()
        return self._written.write(self._groups.param_groups, self.tried)

    def _compare(self, *_: object) -> None:
        """An update is made now: see at which rate, and for whom. What a scheduler writes behind it does no harm."""
        if not self._under_way:
            self._outside = True
            return
        for lr, _group, rate in self._written.foreign()[:1]:
            self._foreign = (lr, rate)

    def report_foreign(self, log: LogFn, step: int) -> None:
        """Step `step` has ended: say once that an optimizer was stepped outside of steps, and that it was made at a
        rate that somebody else has written, so that what it shows is no answer."""
        self._under_way = False
        if self._outside and not self._told_outside:
            self._told_outside = True
            log(foreign_step(step))
        if self._foreign is None:
            return
        lr, rate = self._foreign
        log(foreign_lr(step, lr, rate, climbing=True))
        self.leave()

    def leave(self) -> None:
        """Let go of the optimizers."""
        self._foreign = None
        for hook in self._hooks:
            hook.remove()

    def change(self) -> Tensor:
        """What the update just launched has changed, a scalar on the device that all workers agree on.

        Before the first cycle: what it would have, were the optimizer's memory full, for there its scale is found.
        """
        part = settled_part(self._engine.optimizers) if self.climb.unit is None else 1.0
        return self._engine.agreed(self._meter.measure() * part)  # workers that share the weights out may differ in it

    def pass_step(self) -> None:
        """No update is made at the rate that was set; the next one has it."""
        self.climb.pass_step()

    def settle(self) -> bool:
        """Let the climb be over where it knows its knee by now; returns whether it is."""
        return self.climb.settle()

    def follow(self, step: int, lr: float | None, numbers: tuple[float, float, float], overflow: bool) -> None:
        """Take loss, gradient norm and change of an update at `lr`; `step` is the newest one launched.

        Nothing is told where the gradient was an `overflow` of a scaled loss.
        """
        assert lr is not None  # a step launched in a climb is followed before the climb ends
        loss, grad_norm, change = numbers
        seen = loss if math.isfinite(grad_norm) else math.nan
        self.observe(step, lr, None if overflow else seen, change)

    def observe(self, step: int, lr: float, loss: float | None, change: float) -> None:
        """Take the numbers of a step, as `Climb.observe` does; `step` is the newest one launched."""
        worth_keeping = self.climb.observe(lr, loss, change)
        if loss is not None:
            if self._candidate is not None and math.isfinite(loss) and not self.over:
                self._kept_at, self._kept = self._candidate
            self._candidate = None
        if worth_keeping:
            self._candidate = (step, self._engine.snapshot())

    def keep(self, step: int) -> None:
        """Copy the current state, after optimizer step `step`: beside each checkpoint, too, so that resume is exact."""
        self._kept_at, self._kept, self._candidate = step, self._engine.snapshot(), None

    def go_back(self, step: int) -> Found:
        """Go back from the edge, the newest step being `step`, to where the loss was lowest; returns what was found."""
        self.leave()
        momentum = momentum_alone(self._engine.optimizers)
        self._kept.restore()
        return self.climb.found(step - self._kept_at, momentum)

    def state_dict(self) -> dict[str, Any]:
        """Plain values; the copy is not among them, it is taken anew on resume."""
        return {"climb": self.climb.state_dict(), "kept_at": self._kept_at}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], engine: Engine, config: ClimbConfig) -> Climbing:
        """Go on from what `state_dict` returned, the training state being the one it was saved with; checked before."""
        return cls(Climb.from_state(state["climb"], config), engine, state["kept_at"])


def climb_and_restore(climb: Climb, engine: Engine, trial: Trial, first_batch: int) -> Found:
    """The climb through `trial`, on the batches from `first_batch` on, taken back: for a look at the curve."""
    snapshot, climbing, step = engine.snapshot(), Climbing(climb, engine, 0), 0
    try:
        while not climbing.over:
            climbing.before_step()
            loss = trial.train(first_batch + step, climbing.tried)
            step += 1
            climbing.observe(step, climbing.tried, loss, float(climbing.change()))
        return climbing.go_back(step)
    finally:
        climbing.leave()
        snapshot.restore()
