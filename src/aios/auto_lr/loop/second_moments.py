"""Whether optimizers scale their updates by second moments of the gradient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from torch import Tensor


def keep_second_moments(optimizers: Iterable[Any]) -> bool:
    """Whether one of them keeps running second moments, as Adam, RMSprop, Adafactor do; SGD and Lion do not.

    Told by their states after some updates: of what optimizers keep for each weight, only such moments are nowhere
    negative. Reads the states from the device.
    """
    return any(any(map(_nowhere_negative, _kept(optimizer).values())) for optimizer in optimizers)


def _kept(optimizer: Any) -> dict[str, list[Tensor]]:
    """All tensors of an optimizer's state by what they are called, without counters."""
    kept: dict[str, list[Tensor]] = defaultdict(list)
    for own in getattr(optimizer, "state", {}).values():
        for name, value in own.items() if isinstance(own, dict) else ():
            if isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0:
                kept[name].append(value)
    return kept


def _nowhere_negative(tensors: list[Tensor]) -> bool:
    return all(bool((tensor >= 0).all()) for tensor in tensors) and any(bool(tensor.any()) for tensor in tensors)
