"""What a module, a callback or a trainer keeps beside weights and buffers, brought back after a trial."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from aios.integrations.containers import copied, refill


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
def attributes_kept(owner: object, but: Collection[str] = ()) -> Iterator[None]:
    """Restore attributes, all `but` those named, and the contents of their lists, dicts and sets; drop new ones.

    A step often gathers there what the end of the epoch averages. Other objects are left as they are.
    """
    own = {name: value for name, value in vars(owner).items() if name not in but}
    held = {name: copied(value) for name, value in own.items()}
    try:
        yield
    finally:
        for name in vars(owner).keys() - set(but) - own.keys():
            delattr(owner, name)
        for name, value in own.items():
            vars(owner)[name] = value
            refill(value, held[name])
