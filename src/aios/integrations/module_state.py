"""What a module keeps outside its weights and buffers, brought back after a trial: no snapshot has it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning.pytorch as pl
from torch import nn

_CONTAINERS = (list, dict, set, deque)
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
def attributes_kept(module: pl.LightningModule) -> Iterator[None]:
    """Bring back the attributes that the module's author gave it, and what lists, dicts and sets among them hold: many
    a `training_step` gathers there what the end of the epoch makes a mean of.

    Left alone are other objects, and the parts of the module.
    """
    own = {name: value for name, value in vars(module).items() if name not in _LIGHTNINGS}
    held = {name: _copied(value) for name, value in own.items()}
    try:
        yield
    finally:
        for name in vars(module).keys() - _LIGHTNINGS - own.keys():
            delattr(module, name)
        for name, value in own.items():
            vars(module)[name] = value
            _refill(value, held[name])


def _copied(value: Any) -> Any:
    """A container, and the containers in it, with the same things inside; anything else as it is."""
    if not isinstance(value, _CONTAINERS):
        return value
    twin: Any = copy.copy(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            twin[key] = _copied(inner)
    elif not isinstance(value, set):
        for place, inner in enumerate(value):
            twin[place] = _copied(inner)
    return twin


def _refill(container: Any, held: Any) -> None:
    """Make a container hold that again; it stays the same object, which others may know."""
    if isinstance(container, _CONTAINERS):
        container.clear()
        fill = container.extend if isinstance(container, (list, deque)) else container.update
        fill(held)
