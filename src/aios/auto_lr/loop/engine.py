"""Who holds the training state that the controller copies, brings back and updates; by default this process."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aios.auto_lr.loop.arguments import check_steerable, check_trains, check_whole
from aios.auto_lr.loop.frozen import FrozenCopies
from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.loop.update import clip_and_update
from aios.auto_lr.loop.weights import held_by, trainable
from aios.auto_lr.recovery import Restorable


class Engine(Protocol):
    """What the controller asks of whatever makes the updates."""

    @property
    def optimizers(self) -> Sequence[torch.optim.Optimizer]:
        """Those whose param groups carry the learning rate."""

    @property
    def device(self) -> torch.device:
        """Where a step's numbers are."""

    @property
    def schedules_lr(self) -> bool:
        """Whether a scheduler of the engine's own sets the LR, after each update."""

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled, so that the gradient may overflow now and then without trouble."""

    @property
    def snapshot_obstacle(self) -> str | None:
        """Why there are no exact snapshots; None when there are."""

    @property
    def weights(self) -> Sequence[Tensor]:
        """Those that learn, or this worker's part of them where the workers share them out."""

    def agreed(self, number: Tensor) -> Tensor:
        """A number made from this worker's part of the weights, as the mean over all workers."""

    def whole_model(self) -> AbstractContextManager[None]:
        """While the block runs every worker holds all weights; all must enter it."""

    def snapshot(self) -> Restorable:
        """A copy of the training state; where several processes share it, all call this and `restore` together."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, scaled where the engine scales."""

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """Clip, update, clear the gradients; returns their norm before clipping, a scalar on the device.

        The update is skipped when `loss` or the norm is not finite, or the norm is above `skip_above`.
        """


def overflowed(engine: Engine, loss: float | Tensor, grad_norm: float | Tensor) -> bool:
    """Whether the gradient was too large because of loss scaling; the scaler lowers its scale then.

    Without loss scaling nothing is read from the device.
    """
    return engine.scales_loss and math.isfinite(loss) and not math.isfinite(grad_norm)


@dataclass
class InProcess:
    """Model and optimizers in this process."""

    model: nn.Module
    """Whose weights are trained; those that learn, but not by `optimizers`, are left to others."""
    optimizers: Sequence[torch.optim.Optimizer]
    """Of its parameters, or anything with `param_groups`, `state`, `step` and `zero_grad`."""
    scaler: torch.amp.GradScaler
    """Loss scaling; disabled where there is none."""
    device: torch.device
    """Where a step's numbers are; of a model on several devices that of the first weight that learns."""
    max_grad_norm: float
    """Global L2 norm to clip at."""
    workers: torch.distributed.ProcessGroup | None = None
    """Those whose DistributedDataParallel trains the model together; None where this process trains it alone."""
    frozen: FrozenCopies = field(init=False, repr=False, default_factory=FrozenCopies)
    """What the snapshots share."""
    schedules_lr: ClassVar[bool] = False
    """The LR is set from outside."""
    snapshot_obstacle: ClassVar[str | None] = None
    """There are snapshots."""

    @property
    def scales_loss(self) -> bool:
        """As `Engine.scales_loss`."""
        return self.scaler.is_enabled()

    @property
    def weights(self) -> Sequence[Tensor]:
        """As `Engine.weights`."""
        return trainable(held_by(self.optimizers, self.model))

    def agreed(self, number: Tensor) -> Tensor:
        """As `Engine.agreed`, over `workers`."""
        if self.workers is None:
            return number
        mean = number.detach().clone()
        torch.distributed.all_reduce(mean, group=self.workers)  # a sum: gloo has no mean
        return mean / self.workers.size()

    def whole_model(self) -> AbstractContextManager[None]:
        """It always is."""
        return nullcontext()

    def snapshot(self) -> Snapshot:
        """As `Engine.snapshot`."""
        return Snapshot(self.model, self.optimizers, self.scaler, frozen=self.frozen)

    def backward(self, loss: Tensor) -> None:
        """As `Engine.backward`."""
        self.scaler.scale(loss).backward()

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """As `Engine.update`."""
        return clip_and_update(self.model, self.optimizers, self.scaler, loss, self.max_grad_norm, skip_above)


def in_process(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler | None,
    max_grad_norm: float,
) -> InProcess:
    """The engine of a loop of anyone's own; ValueError where the optimizers train nothing of the model, or cannot be
    steered."""
    check_steerable(optimizers)
    check_whole(model)
    check_trains(model, [group for optimizer in optimizers for group in optimizer.param_groups])
    device = trainable(model.parameters())[0].device
    scaler = scaler or torch.amp.GradScaler(device.type, enabled=False)
    return InProcess(model, tuple(optimizers), scaler, device, max_grad_norm, _workers_of(model))


def _workers_of(model: nn.Module) -> torch.distributed.ProcessGroup | None:
    """The largest group that a DistributedDataParallel in `model` exchanges gradients with: it may be compiled, or one
    part of several."""
    groups = [part.process_group for part in model.modules() if isinstance(part, DistributedDataParallel)]
    return max(groups, key=lambda group: group.size(), default=None)
