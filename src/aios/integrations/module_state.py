"""What a module or a callback keeps outside weights and buffers, brought back after a trial: no snapshot has it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import nn

from aios.integrations.containers import copied, refill

_LIGHTNINGS = vars(pl.LightningModule()).keys()
"""The attributes by which torch and Lightning work."""


@contextmanager
def metrics_kept(module: nn.Module) -> Iterator[None]:
    """Bring back what torchmetrics in the module have gathered."""
    metrics: list[Any] = [part for part in module.modules() if isinstance(getattr(part, "metric_state", None), dict)]
    before = [copy.deepcopy(metric.metric_state) for metric in metrics]
    try:
        yield
    finally:
        for metric, state in zip(metrics, before, strict=True):
            for name, value in state.items():
                setattr(metric, name, value)


@contextmanager
def attributes_kept(owner: pl.LightningModule | pl.Callback) -> Iterator[None]:
    """Bring back the attributes that a module's or callback's author gave it, and what lists, dicts and sets among them
    hold: many a `training_step` gathers there what the end of the epoch makes a mean of.

    Left alone are other objects, and the parts of a module.
    """
    own = {name: value for name, value in vars(owner).items() if name not in _LIGHTNINGS}
    held = {name: copied(value) for name, value in own.items()}
    try:
        yield
    finally:
        for name in vars(owner).keys() - _LIGHTNINGS - own.keys():
            delattr(owner, name)
        for name, value in own.items():
            vars(owner)[name] = value
            refill(value, held[name])
