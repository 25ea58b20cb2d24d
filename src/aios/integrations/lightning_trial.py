"""Steps of a LightningModule on trial: its own `training_step` on batches it has not come to yet."""

from __future__ import annotations

import copy
import dis
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from inspect import Parameter
from itertools import islice
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.utilities.apply_func import _TransferableDataType
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from aios.auto_lr import Engine
from aios.auto_lr.loop.update import check_dense
from aios.errors import UserError
from aios.integrations.look_ahead import Ahead, LookAhead, epochs_from
from aios.integrations.module_state import attributes_kept, metrics_kept
from aios.integrations.replacing import idle, replaced

_LEFT_OUT_IN_A_ROW = 16
"""Most skipped batches in a row before the search for an accepted one is given up."""


def can_be_tried(module: pl.LightningModule) -> bool:
    """Whether `training_step` is the loss of a batch, and no more than that."""
    takes = inspect.signature(module.training_step).parameters
    return bool(module.automatic_optimization) and "dataloader_iter" not in takes


def run_ahead(
    trainer: pl.Trainer, ours: pl.Callback, engine: Engine, ahead: LookAhead, batch: int, learns: bool
) -> Tensor:
    """The mean loss of optimizer step number `batch`; where it `learns` its gradients take the place of those before.

    Callbacks beside `ours` prepare the batch as in training. What is logged on the way is dropped; metrics and
    attributes stay as they were. If all batches of a step are skipped, the next accepted one counts; after 16 the loss
    is NaN.
    """
    micro, losses, others = trainer.accumulate_grad_batches, list[Tensor](), _preparing(trainer, ours)
    if learns:
        for optimizer in trainer.optimizers:
            optimizer.zero_grad()  # Lightning keeps the gradients of the last update
    with metrics_kept(trainer.lightning_module), _nothing_left(trainer, others):
        for number in range(batch * micro, (batch + 1) * micro + _LEFT_OUT_IN_A_ROW):
            if number >= (batch + 1) * micro and losses:
                break
            loss = _loss_of(_step(trainer, others, ahead[number], number))
            if loss is None:
                continue
            if learns:
                engine.backward(loss / micro)
                trainer.lightning_module.on_after_backward()
            losses.append(loss.detach().float())
        if learns and losses:
            _prepare_update(trainer)
    return torch.stack(losses).mean() if losses else torch.tensor(math.nan, device=engine.device)


def clips_at(trainer: pl.Trainer) -> float:
    """The norm that trials clip at, as the trainer does; infinite where the module clips."""
    return math.inf if _module_clips(trainer) else trainer.gradient_clip_val or math.inf


def _prepare_update(trainer: pl.Trainer) -> None:
    """What the module's own hooks do to gradients before an update; they see them without the scale of the loss.

    Gradients that are not finite are left: clipped by value they would seem to be.
    """
    scaler, (optimizer, *_) = getattr(trainer.precision_plugin, "scaler", None), trainer.optimizers
    scale = 1.0 if scaler is None else scaler.get_scale()
    check_dense(trainer.lightning_module)
    gradients = gradients_of([optimizer])
    if not (gradients and torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
        return
    torch._foreach_div_(gradients, scale)
    trainer.lightning_module.on_before_optimizer_step(optimizer)
    if _module_clips(trainer):
        clip, at = trainer.lightning_module.configure_gradient_clipping, trainer.gradient_clip_val
        clip(optimizer, gradient_clip_val=at, gradient_clip_algorithm=trainer.gradient_clip_algorithm)
    torch._foreach_mul_(gradients_of([optimizer]), scale)


def gradients_of(optimizers: Iterable[torch.optim.Optimizer]) -> list[Tensor]:
    """Those of all their weights, as they are."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    return [p.grad for group in groups for p in group["params"] if p.grad is not None]


def _module_clips(trainer: pl.Trainer) -> bool:
    """Whether `configure_gradient_clipping` does more than to clip at a norm."""
    by_value = trainer.gradient_clip_algorithm not in (None, "norm")
    return by_value or is_overridden("configure_gradient_clipping", trainer.lightning_module)


def _preparing(trainer: pl.Trainer, ours: pl.Callback) -> list[pl.Callback]:
    """The callbacks that may prepare a batch: `on_train_batch_start` names it and does something with it.

    No other callback sees a trial; Lightning's own at most log there.
    """
    hooks = {one: one.on_train_batch_start for one in trainer.callbacks if one is not ours}
    strangers = {one: hook for one, hook in hooks.items() if not str(hook.__module__).startswith(pl.__name__)}
    return [one for one, hook in strangers.items() if _uses_batch(hook)]


def _uses_batch(hook: Callable[..., Any]) -> bool:
    """Whether the third of a hook's arguments has a name, and its code that name; what has no code may use all."""
    third = list(inspect.signature(hook).parameters.values())[2:3]
    if not third or third[0].kind is Parameter.VAR_POSITIONAL:
        return False
    code = getattr(inspect.unwrap(hook), "__code__", None)
    return code is None or any(each.argval == third[0].name for each in dis.get_instructions(code))


def _step(trainer: pl.Trainer, others: Sequence[pl.Callback], drawn: Any, number: int) -> Any:
    """What `training_step` returns for a batch that it is led to as in training."""
    module = trainer.lightning_module
    inputs = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(_twin(drawn)), 0)
    inputs = trainer.strategy.batch_to_device(inputs, dataloader_idx=0)
    for callback in others:
        callback.on_train_batch_start(trainer, module, inputs, number)
    module.on_train_batch_start(inputs, number)
    return trainer.strategy.training_step(*_arguments(module, inputs, number))


def _twin(drawn: Any) -> Any:
    """A batch of the trial's own: the next rate is tried on the same one, and hooks may write into it."""

    def twin(part: Any) -> Any:
        return part.clone() if isinstance(part, Tensor) else copy.copy(part)

    return apply_to_collection(drawn, (Tensor, _TransferableDataType), twin, allow_frozen=True)


def begin_look(trainer: pl.Trainer, number: int, position: int) -> Ahead:
    """A look from batch `position` of the current epoch on, `number` being the training's own for it.

    An epoch has the batches that training takes of it: several loaders in their mode, cut where the trainer limits it.
    """
    combined, epoch, most = trainer.fit_loop._combined_loader, trainer.current_epoch, trainer.num_training_batches
    end = None if math.isinf(most) else int(most)

    def open_epoch(wanted: int) -> Iterator[Any]:
        beside = _unopened(combined)  # the training's keeps its place
        beside.flattened = [_unopened(loader) for loader in combined.flattened]
        try:
            for batch, _, _ in islice(beside, position if wanted == epoch else 0, end):
                yield batch
        finally:
            beside.reset()  # ends the workers

    return Ahead(number, trainer.train_dataloader, epochs_from(epoch, open_epoch))


def _unopened(loader: Any) -> Any:
    """A copy with an iterator of its own: a DataLoader with persistent workers hands one and the same to everybody."""
    twin = copy.copy(loader)
    twin._iterator = None
    return twin


def _arguments(module: pl.LightningModule, inputs: Any, number: int) -> tuple[Any, ...]:
    takes_number = is_param_in_hook_signature(module.training_step, "batch_idx", min_args=2)
    return (inputs, number) if takes_number else (inputs,)


def _loss_of(output: Any) -> Tensor | None:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise UserError("training_step gave no loss for a batch, so no rate can be tried on it")
    return loss


@cache
def _lightnings() -> frozenset[str]:
    """The attributes by which torch and Lightning work, and the parts of a module."""
    return frozenset(vars(pl.LightningModule()))


@contextmanager
def _nothing_left(trainer: pl.Trainer, others: Sequence[pl.Callback]) -> Iterator[None]:
    """Leave no trace in loggers, attributes and the flag that stops training."""
    loggers, stops = trainer.loggers, trainer.should_stop
    trainer.loggers = [DummyLogger() for _ in loggers]
    try:
        with ExitStack() as kept:
            for owner in (trainer.lightning_module, *others):
                kept.enter_context(attributes_kept(owner, but=_lightnings()))
                for name in ("log", "log_dict"):
                    if hasattr(owner, name):  # a callback that joined in training has none
                        kept.enter_context(replaced(owner, name, idle))
            yield
    finally:
        trainer.loggers, trainer.should_stop = loggers, stops
