"""Limits and ticks of the axes: pure numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from aios.run_view.series import Floats

MAX_DECADES = 3.6
"""Decades of learning rate shown below the highest: a warm-up or an anneal goes down without end on a log axis."""


def _finite(parts: Sequence[Floats]) -> Floats:
    values = np.concatenate([np.asarray(part, dtype=np.float64).ravel() for part in parts]) if parts else np.empty(0)
    return values[np.isfinite(values)]


def loss_limits(raw: Sequence[Floats], firm: Sequence[Floats], reference: float | None) -> tuple[float, float]:
    """(bottom, top) that show all of `firm` values but lets single far outliers of `raw` and a wild start leave.

    `reference` is shown too unless that would squeeze the curves.
    """
    values, sure = _finite(raw), _finite(firm)
    if len(values) == 0:
        values = sure if len(sure) else np.array([0.0, 1.0])
    low, high = np.percentile(values, [0.2, 99.0])
    reach = max(float(high - low), 1e-9 * max(1.0, abs(float(high))))
    bottom = max(float(values.min()), float(low) - 0.5 * reach)
    top = min(float(values.max()), float(high) + 1.2 * reach)
    if len(sure):
        bottom = min(bottom, float(np.percentile(sure, 0.5)))
        top = max(top, float(np.percentile(sure, 99.0)))
    if reference is not None and bottom - 0.6 * reach < reference < top + 0.4 * reach:
        bottom, top = min(bottom, reference), max(top, reference)
    pad = 0.05 * (top - bottom) or 0.05 * max(abs(top), 1.0)
    return bottom - pad, top + pad


def log10_of(values: Floats) -> Floats:
    """Their logarithms to base 10; NaN for what has none."""
    return np.log10(np.where(values > 0, values, np.nan))


def rate_limits(rates: Sequence[Floats], marked: Sequence[Floats]) -> tuple[float, float]:
    """(bottom, top) of the learning rate's log axis; every mark is inside."""
    values, marks = _finite(rates), _finite(marked)
    values, marks = values[values > 0], marks[marks > 0]
    shown = np.concatenate([values, marks])
    if len(shown) == 0:
        return 1e-4, 1e-2
    top = float(shown.max())
    bottom = max(float(shown.min()), top / 10**MAX_DECADES)
    if len(marks):
        bottom = min(bottom, float(marks.min()))
    if top < 4 * bottom:  # hardly any change: do not blow it up to the full height
        middle = math.sqrt(top * bottom)
        top, bottom = 2 * middle, middle / 2
    pad = (top / bottom) ** 0.07
    return bottom / pad, top * pad


def rate_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """(values, names) of the ticks between `low` and `high`: about four to eight, at round numbers."""
    decades = math.log10(high / low)
    digits = (
        (1, 1.5, 2, 3, 4, 5, 6, 8)
        if decades < 0.7
        else (1, 2, 5)
        if decades < 1.5
        else (1, 3)
        if decades < 2.8
        else (1,)
    )
    every = max(1, round(decades / 7))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [(digit, power) for power in powers if power % every == 0 for digit in digits]
    inside = [(digit, power) for digit, power in ticks if low <= digit * 10.0**power <= high]
    return [digit * 10.0**power for digit, power in inside], [f"{digit:g}e{power}" for digit, power in inside]


def step_limits(reach: int, planned: int | None) -> tuple[float, float]:
    """(first, last) step of the axis of a run that has come to step `reach`, of `planned` ones if it is to go on."""
    return 0.0, 1.012 * max(1, reach, planned or 0)


def leap(
    limits: Sequence[tuple[float, float]], needed: tuple[tuple[float, float], ...], planned: bool = False
) -> tuple[tuple[float, float], ...]:
    """Limits of (step, loss, learning rate) that hold `needed`: the old ones for as long as they do that well.

    With `planned` the steps needed are those of all the run: they need no room to grow.
    """
    (x_old, y_old, lr_old), (x, y, lr) = limits, needed
    # 8 % of room on the right: a run of n steps makes log(n) / log(1.08) leaps.
    x_new = x if planned else x_old if 0.75 * x_old[1] <= x[1] <= x_old[1] else (x[0], 1.08 * x[1])
    keeps_y = y_old[0] <= y[0] and y[1] <= y_old[1] and y_old[1] - y_old[0] <= 1.4 * (y[1] - y[0])
    room = 0.05 * (y[1] - y[0])
    log_old, log_new = math.log(lr_old[1] / lr_old[0]), math.log(lr[1] / lr[0])
    keeps_lr = lr_old[0] <= lr[0] and lr[1] <= lr_old[1] and log_old <= 1.4 * log_new
    return (
        x_new,
        y_old if keeps_y else (y[0] - room, y[1] + room),
        lr_old if keeps_lr else (lr[0] / 1.1, lr[1] * 1.1),
    )


def log_loss_ticks(low: float, high: float) -> list[float]:
    """Ticks of a log axis of losses: evenly spaced round numbers where it spans less than a factor of 8."""
    if high > 8 * low:
        return rate_ticks(low, high)[0]
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(digit * power for digit in (1, 2, 5, 10) if digit * power >= rough)
    return [at * step for at in range(math.ceil(low / step), math.floor(high / step) + 1)]


def step_name(value: float, _position: float | None = None) -> str:
    """20000 -> `20,000`; nothing at fractions of a step."""
    return f"{value:,.0f}" if abs(value - round(value)) < 1e-9 else ""
