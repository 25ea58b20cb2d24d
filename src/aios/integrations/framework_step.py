"""One optimizer step of a framework, told to `AutoLR`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.update import UpdateGuard, check_dense
from aios.errors import UserError

_JOINS_LATE = (
    "a param group joined the optimizer after training had begun, and no copy of the training state has it: hand all "
    "weights to the optimizer at once; those without requires_grad stay as they are until they get it"
)


class FrameworkStep:
    """`begin`, `see` for each micro-batch, `decide` before the framework's update and `follow` after it.

    `mean` averages a scalar over the workers that share the model. Nothing here waits for the device.
    """

    def __init__(
        self,
        auto: AutoLR,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler | None,
        mean: Callable[[Tensor], Tensor],
    ) -> None:
        self.auto = auto
        self.guards = [UpdateGuard(optimizer, scaler) for optimizer in optimizers]
        self._mean = mean
        self._groups = [len(optimizer.param_groups) for optimizer in auto.engine.optimizers]
        self._loss: Tensor | None = None  # of this step so far, of this worker
        self._parts = 0  # micro-batches in it
        self._decided: tuple[Tensor, Tensor] | None = None  # loss and norm
        self._dense = False  # whether the first gradients were looked at, and are
        self.open = False
        """Whether a step was begun that has not been followed yet."""

    @property
    def seen(self) -> bool:
        """Whether there was a loss since `begin`."""
        return self._loss is not None

    @property
    def decided(self) -> bool:
        """Whether `decide` was called, and `follow` not yet."""
        return self._decided is not None

    def begin(self) -> float:
        """Set the LR of the update to come; returns it. UserError where an optimizer has got another param group."""
        if self._groups != [len(optimizer.param_groups) for optimizer in self.auto.engine.optimizers]:
            raise UserError(_JOINS_LATE)
        self._loss, self._parts, self._decided = None, 0, None
        self.open = True
        return self.auto.before_step()

    def see(self, loss: Tensor) -> None:
        """Add a micro-batch's part of the step's mean loss, a scalar."""
        loss = loss.detach().float()
        self._loss = loss if self._loss is None else self._loss + loss
        self._parts += 1

    def check_dense(self) -> None:
        """Raise ValueError for sparse gradients, before their norm is taken; those of the first step tell."""
        if not self._dense:
            check_dense(self.auto.model)
            self._dense = True

    def decide(self, norm: Tensor, parts: int | None = None) -> None:
        """Leave the update out where it would do harm; `norm` is that of the whole gradient before clipping.

        The loss is the sum of what was seen. With `parts` each micro-batch was seen as one of so many, and the loss is
        the mean of those that came: fewer at the end of an epoch, more where some made no update of their own.
        """
        if self._loss is None:
            raise ValueError("the update comes after a backward pass: this step has seen no loss")
        loss = self._mean(self._loss if parts is None else self._loss * (parts / self._parts))
        self._decided = (loss, norm)
        skip = self.auto.skips(loss, norm)
        for guard in self.guards:
            guard.leave_out(skip)

    def updated(self) -> None:
        """The framework's update is over."""
        for guard in self.guards:
            guard.done()

    def follow(self) -> None:
        """Hand the step's numbers on; may move the rate, rewind, end a climb, or raise RunError."""
        if self._decided is None:
            raise ValueError("follow comes after decide: this step has made no update")
        decided, self._decided, self.open = self._decided, None, False
        self.auto.after_step(*decided)

    def pass_by(self) -> None:
        """Count the step as one that had no loss and made no update."""
        self.open = False
        self.auto.pass_step()

    def release(self) -> None:
        """Let go of the optimizers, wherever the training was left."""
        self.auto.release()
        for guard in self.guards:
            guard.release()


class StepCount:
    """Counts the steps that the optimizers make between `begin` and `release`, whoever calls them."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        self.made = 0
        """Steps since `begin`, of all optimizers together."""
        self._hooks = [optimizer.register_step_post_hook(self._count) for optimizer in optimizers]

    def begin(self) -> None:
        """Count from 0 again."""
        self.made = 0

    def release(self) -> None:
        """Let go of the optimizers."""
        for hook in self._hooks:
            hook.remove()

    def _count(self, *_: Any) -> None:
        self.made += 1
