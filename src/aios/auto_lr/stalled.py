"""Has a run learned anything yet? Said once, within a few windows, whether or not its rate was searched.

A language model first learns how often each token is, which brings its loss down to the entropy of single tokens, and
then what follows what, which brings it below.

Stalled: the loss is at or above the unigram entropy and its trend, at best, will not change that soon. A slow fall that
is certain to get there within the run is not. Pure, and it only tells: what is done about a rate that a climb has found
is `learning`'s.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Literal

from aios.auto_lr.adaptive_lr import default_window_size
from aios.auto_lr.rules import WindowSums, fit_trend, summarize_window

LEAST_WINDOWS = 3
"""Windows after the warm-up before anything is said."""
MOST_WINDOWS = 6
"""Latest windows that are judged."""
GAIN = 0.03
"""A loss stands still if at best it falls by less than this fraction of itself in as many steps again."""
SIGMAS = 2.0
"""The best case is a slope lower by this many of its standard errors."""
BELOW = 0.01
"""A run has learned once its loss is below the entropy by this fraction of it."""
UNMOVED = 0.2
"""The loss has hardly moved if it fell by less than this fraction of the way from the first losses to the entropy."""
RISEN = 0.05
"""The loss has risen if it is above the first ones by more than this fraction of them."""
_FIRST = 10  # losses that tell where the run began

Cause = Literal["too_low", "too_high", "stuck", "broken"]
"""What it looks like: the loss hardly falls; it rose; it fell and rests at the entropy; it is no number."""


@dataclass(frozen=True)
class Stalled:
    """That a run is not learning."""

    since: int
    """Optimizer step from which on it was looked at."""
    loss: float
    """Mean loss since; NaN where it is broken."""
    reference: float
    """The entropy of single tokens."""
    cause: Cause
    """What it looks like."""

    @property
    def reason(self) -> str:
        """For the log: a word, then the numbers."""
        known = "no finite loss" if math.isnan(self.loss) else f"loss {self.loss:.4g}"
        return f"stalled ({known} since step {self.since}, {self.reference:.4g} to get below)"


class StalledWatch:
    """Takes the losses of a run of `steps` from its beginning, or from a resume, and says once where it is stalled.

    `entropy` is that of single tokens, in nats; where it is not above 0 nothing can be told.
    """

    def __init__(self, entropy: float, steps: int) -> None:
        self._entropy, self._steps = entropy, steps
        self._window = default_window_size(steps)
        self._first: list[float] = []
        self._from_start = False  # False after a resume, when it is unknown how far the loss has come
        self._losses: list[float] = []  # of the window under way
        self._windows: list[WindowSums] = []
        self._lost = 0  # losses in a row that are no numbers
        self.over = not entropy > 0
        """Whether there is nothing more to say."""

    def observe(self, step: int, loss: float, settled: bool) -> Stalled | None:
        """Take the loss of optimizer step `step`; `settled`: the rate is neither warming up nor being annealed."""
        if self.over:
            return None
        if not math.isfinite(loss):
            self._lost += 1
            return self._tell(step - self._lost + 1, math.nan, "broken") if self._lost >= 2 * self._window else None
        self._lost = 0
        if len(self._first) < _FIRST:
            self._from_start = self._from_start or step <= _FIRST
            self._first.append(loss)
        if not settled:
            self._losses, self._windows = [], []
            return None
        self._losses.append(loss)
        if len(self._losses) < self._window:
            return None
        self._windows = [*self._windows, summarize_window(self._losses)][-MOST_WINDOWS:]
        self._losses = []
        return self._judge(step)

    def _judge(self, step: int) -> Stalled | None:
        if self._windows[-1].mean < (1 - BELOW) * self._entropy:
            self.over = True
            return None
        if len(self._windows) < LEAST_WINDOWS:
            return None
        trend = fit_trend(self._windows)
        at_best = (SIGMAS * trend.stderr - trend.slope) * trend.steps
        if not at_best < GAIN * abs(trend.level):
            return None
        falls = trend.slope < -SIGMAS * trend.stderr
        if falls and -trend.slope * (self._steps - step) >= trend.level - self._entropy:
            return None  # slow, but soon enough for a run of this length
        return self._tell(step - trend.steps, trend.level, "too_low" if falls else self._cause(trend.level))

    def _cause(self, level: float) -> Cause:
        began = statistics.median(self._first)
        if level > began + RISEN * abs(began):
            return "too_high"
        unmoved = self._from_start and began - level < UNMOVED * (began - self._entropy)
        return "too_low" if unmoved else "stuck"

    def _tell(self, since: int, loss: float, cause: Cause) -> Stalled:
        self.over = True
        return Stalled(since, loss, self._entropy, cause)
