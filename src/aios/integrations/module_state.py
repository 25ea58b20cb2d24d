"""What a module or a callback keeps outside weights and buffers, brought back after a trial: no snapshot has it."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import lightning.pytorch as pl
from torch import nn

from aios.integrations.containers import copied, refill


@cache
def _lightnings() -> frozenset[str]:
    """The attributes by which torch and Lightning work."""
    return frozenset(vars(pl.LightningModule()))


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
    """Restore attributes set by the user and the contents of their lists, dicts and sets.

    A `training_step` often gathers there what the end of the epoch averages. Other objects, and the parts of a module,
    are left alone.
    """
    own = {name: value for name, value in vars(owner).items() if name not in _lightnings()}
    held = {name: copied(value) for name, value in own.items()}
    try:
        yield
    finally:
        for name in vars(owner).keys() - _lightnings() - own.keys():
            delattr(owner, name)
        for name, value in own.items():
            vars(owner)[name] = value
            refill(value, held[name])
