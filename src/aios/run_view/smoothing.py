"""The smoothed loss: an exponential mean that takes in more steps as the run grows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from aios.run_view.series import Series

SHARE = 0.02
"""Time constant as a share of the steps so far: smooth at every length of run, on the same picture."""
LEAST = 5.0
"""Time constant at least, in steps."""


def weight(count: float, share: float) -> float:
    """What the newest of `count` values weighs in the mean, where its time constant is `share` of the count."""
    return 1 / min(count, max(LEAST, share * count))


def smoothed(series: Series, share: float) -> Series:
    """The mean of a curve with the time constant `share` x steps so far; 0: the curve itself.

    Of entries that stand for several steps, their means are smoothed.
    """
    if not share or not len(series):
        return series
    value, last, values = math.nan, 0.0, []
    for step, mean in zip(series.steps.tolist(), series.mean.tolist(), strict=True):
        if math.isfinite(mean):
            kept = (1 - weight(max(step, 2.0), share)) ** max(step - last, 1.0)
            value, last = mean if math.isnan(value) else mean + kept * (value - mean), step
        values.append(value if math.isfinite(mean) else math.nan)
    mean = np.array(values)
    return replace(series, mean=mean, low=mean, high=mean)


class Smoother:
    """Exponential mean whose time constant grows with the steps seen.

    The weight of a new value is 1 / min(n, max(LEAST, SHARE * n)): a plain mean at first, so the start is unbiased.
    """

    def __init__(self) -> None:
        self._count, self._value = 0, 0.0

    def add(self, value: float) -> float:
        """Take a finite value; the mean with it."""
        self._count += 1
        self._value += (value - self._value) * weight(self._count, SHARE)
        return self._value

    def go_on_from(self, value: float | None, count: int) -> None:
        """As if `count` values had led to `value`; None: begin anew."""
        self._count, self._value = (0, 0.0) if value is None else (max(count, 1), value)
