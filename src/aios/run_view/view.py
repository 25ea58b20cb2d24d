"""What part of a run is looked at, and how: limits, zoom, scale and smoothing, as plain numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

Limits = tuple[float, float]
"""(lowest, highest) of an axis."""

SMOOTHINGS: Mapping[str, float | None] = {"none": 0.0, "light": 0.005, "normal": None, "strong": 0.08}
"""Time constant by name, as a share of the steps so far; None: the history's own."""
ZOOM = 0.8
"""What one notch of the wheel leaves of the stretch in view."""
PAN = 0.2
"""Share of the stretch in view that one press of a key moves it."""
LEAST_STEPS = 4.0
"""Steps in view at least."""


@dataclass(frozen=True)
class View:
    """How a picture is looked at; None stands for all there is."""

    steps: Limits | None = None
    """Optimizer steps in view."""
    loss: Limits | None = None
    """Losses in view, nats per token."""
    rates: Limits | None = None
    """Learning rates in view."""
    log_loss: bool = False
    """Whether the loss has a log axis."""
    smoothing: str = "normal"
    """One of `SMOOTHINGS`."""

    @property
    def is_whole(self) -> bool:
        """Whether all of the run is in view."""
        return self.steps is self.loss is self.rates is None

    def whole(self) -> View:
        """All of the run, on the same scale."""
        return replace(self, steps=None, loss=None, rates=None)

    def with_steps(self, steps: Limits, whole: Limits) -> View:
        """These steps, kept inside `whole`; all of it where nothing is left out."""
        low, high = inside(steps, whole)
        if high - low >= whole[1] - whole[0]:
            return self.whole()
        return replace(self, steps=(low, high))

    def next_smoothing(self) -> View:
        """The smoothing after this one, in a circle."""
        names = list(SMOOTHINGS)
        return replace(self, smoothing=names[(names.index(self.smoothing) + 1) % len(names)])


def zoomed(limits: Limits, at: float, factor: float) -> Limits:
    """`limits` made `factor` times as wide, with `at` staying where it is."""
    low, high = limits
    factor = max(factor, LEAST_STEPS / (high - low)) if factor < 1 else factor
    return at - factor * (at - low), at + factor * (high - at)


def panned(limits: Limits, share: float) -> Limits:
    """`limits` moved by a share of their own width."""
    by = share * (limits[1] - limits[0])
    return limits[0] + by, limits[1] + by


def inside(limits: Limits, whole: Limits) -> Limits:
    """`limits` moved, and where they are too wide cut, so that they lie in `whole`."""
    width = min(limits[1] - limits[0], whole[1] - whole[0])
    low = min(max(limits[0], whole[0]), whole[1] - width)
    return low, low + width


def boxed(one: float, other: float, least: float) -> Limits | None:
    """The limits between two ends of a drag, in either order; None where they are less than `least` apart."""
    if not (math.isfinite(one) and math.isfinite(other)) or abs(one - other) < least:
        return None
    return min(one, other), max(one, other)
