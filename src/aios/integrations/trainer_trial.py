"""Steps of a `Trainer` on trial: its own `training_step` on batches it has not come to yet."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from aios.integrations.accelerated import mean_over_workers
from aios.integrations.containers import CONTAINERS, copied, refill
from aios.integrations.look_ahead import LookAhead
from aios.integrations.replacing import replaced

TrainingStep = Callable[..., Tensor]


def run_ahead(trainer: Trainer, training_step: TrainingStep, ahead: LookAhead, batch: int, learns: bool) -> Tensor:
    """The mean loss of optimizer step number `batch`; where it `learns` its gradients are added.

    `training_step` is the trainer's own. What the trainer counts beside stays as it was.
    """
    micro = trainer.args.gradient_accumulation_steps
    inputs = iter([copy.copy(ahead[number]) for number in range(batch * micro, (batch + 1) * micro)])
    samples, items = trainer.get_batch_samples(inputs, micro, trainer.args.device)
    with _counts_kept(trainer), nullcontext() if learns else replaced(trainer.accelerator, "backward", _no_backward):
        trainer.current_gradient_accumulation_steps = len(samples)
        losses = [training_step(trainer.model_wrapped, sample, items) for sample in samples]
    return mean_over_workers(trainer.accelerator, torch.stack([loss.float() for loss in losses]).sum())


def _no_backward(*_: Any, **__: Any) -> None:
    """In place of the backward pass."""


@contextmanager
def _counts_kept(trainer: Trainer) -> Iterator[None]:
    """Bring back every attribute of the trainer that is plain or a container, which stays the same object: tokens seen,
    metrics of the log, what a `compute_loss` gathers."""
    plain = (int, float, str, type(None), tuple, *CONTAINERS)
    own = {name: value for name, value in vars(trainer).items() if isinstance(value, plain)}
    held = {name: copied(value) for name, value in own.items()}
    try:
        yield
    finally:
        for name, value in own.items():
            vars(trainer)[name] = value
            refill(value, held[name])
