"""Whether the updates of optimizers lag behind the learning rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def momentum_alone(optimizers: Iterable[Any]) -> bool:
    """Whether they keep a momentum for each weight and none keeps running second moments.

    So do SGD with momentum and Lion; not so Adam, RMSprop or Adafactor, nor plain SGD, which keeps nothing.

    Told by their states after some updates: of what optimizers keep for each weight, only second moments are nowhere
    negative. Reads the states from the device.
    """
    kept = [ts for optimizer in optimizers for one in _within(optimizer) for ts in _kept(one).values()]
    return bool(kept) and not any(map(_nowhere_negative, kept))


def _within(optimizer: Any) -> list[Any]:
    """An optimizer, and those that it wraps, each once."""
    found = [optimizer]
    for one in found:  # which grows on the way
        inner = [v for v in getattr(one, "__dict__", {}).values() if isinstance(v, torch.optim.Optimizer)]
        found += [each for each in inner if all(each is not known for known in found)]
    return found


def _kept(optimizer: Any) -> dict[str, list[Tensor]]:
    """All tensors of an optimizer's state by what they are called, without counters."""
    kept: dict[str, list[Tensor]] = defaultdict(list)
    for own in getattr(optimizer, "state", {}).values():
        for name, value in own.items() if isinstance(own, dict) else ():
            if isinstance(value, Tensor) and (value.is_floating_point() or value.is_complex()) and value.ndim > 0:
                kept[name].append(value)
    return kept


def _nowhere_negative(tensors: list[Tensor]) -> bool:
    parts = [torch.view_as_real(tensor) if tensor.is_complex() else tensor for tensor in tensors]
    return all(bool((part >= 0).all()) for part in parts) and any(bool(part.any()) for part in parts)
