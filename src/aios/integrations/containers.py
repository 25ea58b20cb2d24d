"""Lists, dicts, sets and deques that a step fills, made to hold again what they held before."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

CONTAINERS = (list, dict, set, deque)


def copied(value: Any) -> Any:
    """A container, and the containers in it, with the same things inside; anything else as it is."""
    if not isinstance(value, CONTAINERS):
        return value
    twin: Any = copy.copy(value)
    if isinstance(value, dict):
        for key, inner in value.items():
            twin[key] = copied(inner)
    elif not isinstance(value, set):
        for place, inner in enumerate(value):
            twin[place] = copied(inner)
    return twin


def refill(container: Any, held: Any) -> None:
    """Make a container hold that again; it stays the same object, which others may know."""
    if isinstance(container, CONTAINERS):
        container.clear()
        fill = container.extend if isinstance(container, (list, deque)) else container.update
        fill(held)
