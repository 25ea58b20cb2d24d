"""The smoothed loss: an exponential mean that takes in more steps as the run grows."""

from __future__ import annotations

SHARE = 0.02
"""Time constant as a share of the steps so far: smooth at every length of run, on the same picture."""
LEAST = 5.0
"""Time constant at least, in steps."""


class Smoother:
    """Exponential mean whose time constant grows with the steps seen.

    The weight of a new value is 1 / min(n, max(LEAST, SHARE * n)): a plain mean at first, so the start is unbiased.
    """

    def __init__(self) -> None:
        self._count, self._value = 0, 0.0

    def add(self, value: float) -> float:
        """Take a finite value; the mean with it."""
        self._count += 1
        self._value += (value - self._value) / min(self._count, max(LEAST, SHARE * self._count))
        return self._value

    def go_on_from(self, value: float | None, count: int) -> None:
        """As if `count` values had led to `value`; None: begin anew."""
        self._count, self._value = (0, 0.0) if value is None else (max(count, 1), value)
