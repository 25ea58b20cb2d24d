"""What Accelerate wraps, and the way inside: its optimizers, and its loaders from a position on."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.utils import DistributedType

from aios.auto_lr.loop.arguments import shared_out
from aios.errors import UserError
from aios.integrations.look_ahead import Ahead, epochs_from

_WHOLE_MODEL_EACH = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
)


def check_whole_model(accelerator: Accelerator) -> None:
    """Raise UserError where the workers share the weights out among them: nobody here can copy those."""
    kind = accelerator.distributed_type
    if kind not in _WHOLE_MODEL_EACH:
        raise UserError(shared_out(kind.value))


def inner(optimizer: Any) -> torch.optim.Optimizer:
    """The torch optimizer inside Accelerate's."""
    while isinstance(optimizer, AcceleratedOptimizer):
        optimizer = optimizer.optimizer
    found: torch.optim.Optimizer = optimizer
    return found


def mean_over_workers(accelerator: Accelerator, number: torch.Tensor) -> torch.Tensor:
    """The mean of a scalar over the workers, left on the device."""
    mean: torch.Tensor = accelerator.reduce(number.clone(), "mean")
    return mean


def length_of(loader: Any, unknown: int) -> int:
    """Batches in an epoch of a DataLoader; `unknown` where nobody can tell."""
    try:
        return len(loader)
    except TypeError:
        return unknown


def ahead_of(loader: Any, number: int, drawn: int, per_epoch: int) -> Ahead:
    """A look from where `drawn` micro-batches of a prepared `loader` have been trained on, `per_epoch` in an epoch."""
    epoch, position = divmod(drawn, per_epoch)

    def open_epoch(wanted: int) -> Any:
        rest = skip_first_batches(loader, position if wanted == epoch else 0)
        if hasattr(rest, "set_epoch"):
            rest.set_epoch(wanted)
        return rest

    return Ahead(number, loader, epochs_from(epoch, open_epoch))


def scaler_of(accelerator: Accelerator) -> torch.amp.GradScaler | None:
    """The loss scaling in use; None without."""
    scaler: torch.amp.GradScaler | None = accelerator.scaler
    return scaler
