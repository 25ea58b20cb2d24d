"""How many optimizer steps a Lightning run has, which Lightning's own counts do not always say."""

from __future__ import annotations

import math

import lightning.pytorch as pl
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging

from aios.errors import UserError


def steps_done(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Steps of all optimizers together: Lightning counts each one's where the module makes them."""
    return int(trainer.global_step) // _counted_as(trainer, pl_module)


def steps_of(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Steps of all optimizers together in the whole run; UserError where nobody knows its end."""
    steps = _estimated(trainer, pl_module)
    if math.isinf(steps) or steps < 0:  # -1 where the data has no length
        raise UserError("this run has no end that Lightning knows of: give max_steps, or AutoLRCallback(steps=...)")
    limited = 0 < trainer.max_steps <= steps
    return int(steps) // (_counted_as(trainer, pl_module) if limited else 1)


def renews_statistics(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Whether the batch to come, or behind the last one of an epoch the next, only renews those of batch norm."""
    return _renews(trainer, pl_module) and trainer.current_epoch + trainer.is_last_batch >= _epochs(trainer, pl_module)


def _estimated(trainer: pl.Trainer, pl_module: pl.LightningModule) -> float:
    """As `trainer.estimated_stepping_batches`, which assumes that all epochs train, and accumulate as the current one.

    -1 or infinite where Lightning knows of no end.
    """
    batches, most = trainer.num_training_batches, trainer.max_steps
    if trainer.max_epochs is None or trainer.max_epochs < 0 or math.isinf(batches):
        return trainer.estimated_stepping_batches
    scheduler = next((c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)), None)
    every = scheduler.get_accumulate_grad_batches if scheduler else lambda _: trainer.accumulate_grad_batches
    made = sum(math.ceil(batches / every(epoch)) for epoch in range(max(_epochs(trainer, pl_module), 1)))
    return made if most < 0 else min(made, most)


def _renews(trainer: pl.Trainer, pl_module: pl.LightningModule) -> bool:
    """Whether StochasticWeightAveraging has added an epoch, the last one, in which nothing is trained."""
    averaging = [one for one in trainer.callbacks if isinstance(one, StochasticWeightAveraging)]
    without_end = trainer.max_epochs is None or trainer.max_epochs < 0
    if without_end or not pl_module.automatic_optimization:  # a module that steps by itself trains then, too
        return False
    return any(one.pl_module_contains_batch_norm(pl_module) for one in averaging)


def _epochs(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    """Those that train, where their number is known."""
    assert trainer.max_epochs is not None
    return trainer.max_epochs - _renews(trainer, pl_module)


def _counted_as(trainer: pl.Trainer, pl_module: pl.LightningModule) -> int:
    return 1 if pl_module.automatic_optimization else len(trainer.optimizers)
