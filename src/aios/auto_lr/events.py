"""What the controller tells: one dict per event, with `event` and `step`; the keys are the contract's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LogFn = Callable[[dict[str, Any]], object]
"""Takes one event."""


def ignore(record: dict[str, Any]) -> None:
    """For a controller that nobody listens to."""
