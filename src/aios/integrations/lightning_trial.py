"""Steps of a LightningModule on trial: its own `training_step` on batches it has not come to yet."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from aios.auto_lr import Engine
from aios.errors import UserError
from aios.integrations.look_ahead import Ahead, LookAhead, epochs_from
from aios.integrations.module_state import attributes_kept, metrics_kept
from aios.integrations.replacing import replaced

_LEFT_OUT_IN_A_ROW = 16
"""After so many batches that `training_step` leaves out none is looked for any more."""


def can_be_tried(module: pl.LightningModule) -> bool:
    """Whether `training_step` is the loss of a batch, and no more than that."""
    takes = inspect.signature(module.training_step).parameters
    return bool(module.automatic_optimization) and "dataloader_iter" not in takes


def run_ahead(
    trainer: pl.Trainer, module: pl.LightningModule, engine: Engine, ahead: LookAhead, batch: int, learns: bool
) -> Tensor:
    """The mean loss of optimizer step number `batch`; where it `learns` its gradients take the place of those before.

    What the module logs on the way is dropped; its metrics and attributes stay as they were. A `training_step` may
    leave batches out: for a step of which it leaves out all the next batch that it takes counts, and nan is the loss of
    a long row of them.
    """
    micro, losses = trainer.accumulate_grad_batches, list[Tensor]()
    if learns:
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()  # Lightning leaves those of the last update in place
    with metrics_kept(module), attributes_kept(module), _nothing_logged(trainer, module):
        for number in range(batch * micro, (batch + 1) * micro + _LEFT_OUT_IN_A_ROW):
            if number >= (batch + 1) * micro and losses:
                break
            loss = _loss_of(_step(trainer, module, ahead[number], number))
            if loss is None:
                continue
            if learns:
                engine.backward(loss / micro)
            losses.append(loss.detach().float())
    return torch.stack(losses).mean() if losses else torch.tensor(math.nan, device=engine.device)


def _step(trainer: pl.Trainer, module: pl.LightningModule, inputs: Any, number: int) -> Any:
    """What `training_step` returns for a batch that it is led to as in training."""
    inputs = module.on_before_batch_transfer(trainer.precision_plugin.convert_input(inputs), 0)
    inputs = trainer.strategy.batch_to_device(inputs, dataloader_idx=0)
    module.on_train_batch_start(inputs, number)
    return trainer.strategy.training_step(*_arguments(module, inputs, number))


def begin_look(loader: Any, number: int, epoch: int, position: int) -> Ahead:
    """A look from batch `position` of `epoch` on, `number` being the training's own for it."""

    def open_epoch(wanted: int) -> Iterator[Any]:
        return islice(_batches_of(loader), position if wanted == epoch else 0, None)

    return Ahead(number, loader, epochs_from(epoch, open_epoch))


def _batches_of(loader: Any) -> Iterator[Any]:
    """One epoch's batches; several loaders are drawn from together, as in training."""
    if not isinstance(loader, (dict, list, tuple)):
        return iter(loader)
    return (batch for batch, _, _ in CombinedLoader(loader, "max_size_cycle"))


def _arguments(module: pl.LightningModule, inputs: Any, number: int) -> tuple[Any, ...]:
    takes_number = len(inspect.signature(module.training_step).parameters) > 1
    return (inputs, number) if takes_number else (inputs,)


def _loss_of(output: Any) -> Tensor | None:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise UserError("training_step gave no loss for a batch, so no rate can be tried on it")
    return loss


def _no_log(*_: Any, **__: Any) -> None:
    """In place of the module's log."""


@contextmanager
def _nothing_logged(trainer: pl.Trainer, module: pl.LightningModule) -> Iterator[None]:
    """Neither by the module's `log` nor by its `logger`."""
    loggers = trainer.loggers
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        with replaced(module, "log", _no_log), replaced(module, "log_dict", _no_log):
            yield
    finally:
        trainer.loggers = loggers
