"""The momentum of optimizers whose updates nothing scales to the noise of the gradients."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

USUAL = 0.9
"""Where it has a name that nobody knows."""
_AVERAGES = ("ax",)
"""What is kept of the weights, not of the gradients: by torch's ASGD, whose updates are plain SGD's."""


def momentum_alone(optimizers: Iterable[Any]) -> float:
    """The momentum, 0 to 1, of optimizers that make their updates from one alone; 0 for all others.

    So do SGD with momentum and Lion; not Adam, RMSprop or Adafactor, whose updates second moments scale, nor plain SGD,
    which keeps nothing. Recognised by its state: only second moments are never negative. Reads it from the device.
    """
    inner = [one for optimizer in optimizers for one in with_wrapped(optimizer)]
    kept = [tensors for one in inner for tensors in _kept(one).values()]
    if not kept or any(map(_nowhere_negative, kept)):
        return 0.0
    return max((_momentum(group) for one in inner for group in getattr(one, "param_groups", ())), default=USUAL)


def _momentum(group: Mapping[str, Any]) -> float:
    """Of a param group, by the names that torch and its kin have for it."""
    for name in ("momentum", "betas", "beta1", "beta"):
        if (value := group.get(name)) is not None:
            return float(value[0] if isinstance(value, (tuple, list)) else value)
    return USUAL


def with_wrapped(optimizer: Any) -> list[Any]:
    """An optimizer, and those that it wraps, each once."""
    found = [optimizer]
    for one in found:  # the list grows in the loop
        inner = [v for v in getattr(one, "__dict__", {}).values() if isinstance(v, torch.optim.Optimizer)]
        found += [each for each in inner if all(each is not known for known in found)]
    return found


def _kept(optimizer: Any) -> dict[str, list[Tensor]]:
    """All tensors of an optimizer's state by what they are called, without counters and averages of the weights."""
    kept: dict[str, list[Tensor]] = defaultdict(list)
    for own in getattr(optimizer, "state", {}).values():
        for name, value in own.items() if isinstance(own, dict) else ():
            is_number = isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex())
            if is_number and value.ndim > 0 and name not in _AVERAGES:
                kept[name].append(value)
    return kept


def _nowhere_negative(tensors: list[Tensor]) -> bool:
    parts = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
    return all(bool((part >= 0).all()) for part in parts) and any(bool(part.any()) for part in parts)
