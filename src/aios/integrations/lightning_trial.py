"""Steps of a LightningModule on trial: its own `training_step` on batches it has not come to yet."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn

from aios.auto_lr import Engine
from aios.errors import UserError
from aios.integrations.look_ahead import Ahead, LookAhead, epochs_from
from aios.integrations.replacing import replaced


def can_be_tried(module: pl.LightningModule) -> bool:
    """Whether `training_step` is the loss of a batch, and no more than that."""
    takes = inspect.signature(module.training_step).parameters
    return bool(module.automatic_optimization) and "dataloader_iter" not in takes


def run_ahead(trainer: pl.Trainer, module: pl.LightningModule, engine: Engine, ahead: LookAhead, batch: int) -> Tensor:
    """The mean loss of optimizer step number `batch`, its gradients added where these are enabled.

    What the module logs on the way is dropped, and its metrics stay as they were.
    """
    micro = trainer.accumulate_grad_batches
    losses = []
    with _metrics_kept(module), replaced(module, "log", _no_log), replaced(module, "log_dict", _no_log):
        for number in range(batch * micro, (batch + 1) * micro):
            inputs = module.on_before_batch_transfer(trainer.precision_plugin.convert_input(ahead[number]), 0)
            inputs = trainer.strategy.batch_to_device(inputs, dataloader_idx=0)
            loss = _loss_of(trainer.strategy.training_step(*_arguments(module, inputs, number))) / micro
            if torch.is_grad_enabled():
                engine.backward(loss)
            losses.append(loss.detach().float())
    return torch.stack(losses).sum()


def begin_look(loader: Any, number: int, epoch: int, position: int) -> Ahead:
    """A look from batch `position` of `epoch` on, `number` being the training's own for it."""

    def open_epoch(wanted: int) -> Iterator[Any]:
        return islice(_batches_of(loader), position if wanted == epoch else 0, None)

    return Ahead(number, loader, epochs_from(epoch, open_epoch))


def has_persistent_workers(loader: Any) -> bool:
    """Whether a second iteration over one of the loaders would take the first one's workers."""
    loaders = loader.values() if isinstance(loader, dict) else loader if isinstance(loader, (list, tuple)) else [loader]
    return any(getattr(one, "persistent_workers", False) for one in loaders)


def _batches_of(loader: Any) -> Iterator[Any]:
    """One epoch's batches; several loaders are drawn from together, as in training."""
    if not isinstance(loader, (dict, list, tuple)):
        return iter(loader)
    return (batch for batch, _, _ in CombinedLoader(loader, "max_size_cycle"))


def _arguments(module: pl.LightningModule, inputs: Any, number: int) -> tuple[Any, ...]:
    takes_number = len(inspect.signature(module.training_step).parameters) > 1
    return (inputs, number) if takes_number else (inputs,)


def _loss_of(output: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor):
        raise UserError("training_step gave no loss for a batch, so no rate can be tried on it")
    return loss


def _no_log(*_: Any, **__: Any) -> None:
    """In place of the module's log."""


@contextmanager
def _metrics_kept(module: nn.Module) -> Iterator[None]:
    """Bring back what torchmetrics in the module have gathered: no weights and no buffers, so no snapshot has it."""
    metrics: list[Any] = [part for part in module.modules() if isinstance(getattr(part, "metric_state", None), dict)]
    before = [copy.deepcopy(metric.metric_state) for metric in metrics]
    try:
        yield
    finally:
        for metric, state in zip(metrics, before, strict=True):
            for name, value in state.items():
                setattr(metric, name, value)
