"""How large the first updates of an optimizer are beside those to come."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aios.auto_lr.loop.momentum import with_wrapped


def settled_part(optimizers: Iterable[Any]) -> float:
    """What the newest update of `optimizers` would have been, as a part of what it was, had it come after many others.

    1 but for RMSprop, whose mean of squares begins at zero and has no bias correction (Kingma & Ba 2015, section 3):
    after k updates with decay a it is 1 - a^k of what it will be, and updates are too large by the root of that. 1,
    too, where another optimizer trains beside it, and before any update. Reads a counter, which lies on the device
    where the optimizer is capturable.
    """
    return max((max(_parts(optimizer), default=1.0) for optimizer in optimizers), default=1.0)


def _parts(optimizer: Any) -> list[float]:
    """Of each weight that an optimizer keeps something of."""
    return [
        _part(group, own)
        for one in with_wrapped(optimizer)
        for group in getattr(one, "param_groups", ())
        for weight in group["params"]
        if (own := getattr(one, "state", {}).get(weight))
    ]


def _part(group: Mapping[str, Any], own: Mapping[str, Any]) -> float:
    """By what torch calls its settings and state; an RMSprop whose squares begin at one counts no steps."""
    begins_at_zero = "alpha" in group and "square_avg" in own and "step" in own
    return math.sqrt(1 - group["alpha"] ** float(own["step"])) if begins_at_zero else 1.0
