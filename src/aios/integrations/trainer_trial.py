"""Steps of a `Trainer` on trial: its own `training_step` on batches it has not come to yet."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from transformers import Trainer

from aios.integrations.accelerated import mean_over_workers
from aios.integrations.look_ahead import LookAhead
from aios.integrations.module_state import attributes_kept
from aios.integrations.replacing import idle, replaced

TrainingStep = Callable[..., Tensor]


def run_ahead(trainer: Trainer, training_step: TrainingStep, ahead: LookAhead, batch: int, learns: bool) -> Tensor:
    """The mean loss of optimizer step number `batch`; where it `learns` its gradients are added.

    `training_step` is the trainer's own. What it logs is dropped; what the trainer counts and gathers stays as it was.
    """
    micro = trainer.args.gradient_accumulation_steps
    inputs = iter([copy.copy(ahead[number]) for number in range(batch * micro, (batch + 1) * micro)])
    with attributes_kept(trainer), replaced(trainer, "log", idle), _backward(trainer, learns):
        samples, items = trainer.get_batch_samples(inputs, micro, trainer.args.device)
        trainer.current_gradient_accumulation_steps = len(samples)
        losses = [training_step(trainer.model_wrapped, sample, items) for sample in samples]
    return mean_over_workers(trainer.accelerator, torch.stack([loss.float() for loss in losses]).sum())


def _backward(trainer: Trainer, learns: bool) -> AbstractContextManager[None]:
    """The backward pass has no effect where nothing `learns`."""
    return nullcontext() if learns else replaced(trainer.accelerator, "backward", idle)
