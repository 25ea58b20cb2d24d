"""Decisions scaled to the noise of the loss: a trend counts when it stands out from its own standard error.

The contract's rules compare two windows with fixed thresholds: with little progress per window they sleep, with much
noise they see plateaus. Here all losses since the last change are one straight line, fitted by least squares from
the sums of their windows; the line's slope and its standard error say what is known about progress, and nothing is
done while too little is known. Everything is a pure function of a few numbers per window.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from aios.auto_lr.adaptive_lr import LRDecision
from aios.auto_lr.ranges import Range, check_numbers
from aios.auto_lr.robust_window import MAD_TO_SIGMA

MOST_CONSTANT = 10.0
"""A loss of more times what it has come down by is a constant for the most part: few fall by less than a tenth."""
OUTLIER_SIGMAS = 6.0
"""Distance from the median of its window, in robust sigmas, beyond which a loss says nothing about the trend."""
_RANGES: dict[str, Range] = {
    **dict.fromkeys(("raise_sigmas", "worsen_sigmas", "spike_sigmas", "spike_rise"), Range(0)),
    **dict.fromkeys(("plateau_gain", "raise_gain"), Range(0, 1)),
    "plateau_steps": Range(1),
}


@dataclass(frozen=True)
class NoiseRules:
    """Thresholds in standard errors, and the least change that counts as progress.

    A bad value raises ValueError naming field, value and what is allowed.
    """

    raise_sigmas: float = 4.0
    """The loss must fall by this many standard errors of the slope before the LR may rise."""
    worsen_sigmas: float = 4.0
    """A loss that rises by this many standard errors lowers the LR."""
    spike_sigmas: float = 8.0
    """A window is a spike if its mean lies this many standard errors above the one before, and by `spike_rise`."""
    spike_rise: float = 0.1
    """Least rise of a spike, as a fraction of the loss."""
    plateau_gain: float = 0.005
    """The loss is on a plateau if, even two standard errors better than measured, it would fall by less than this
    fraction of itself, or of ten times what it has come down by since the start, in `plateau_steps`."""
    plateau_steps: int = 500
    """Optimizer steps over which a plateau is judged."""
    raise_gain: float = 0.02
    """Least fall of the loss in one window, as a part of it, for the LR to rise."""

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)


class WindowSums(NamedTuple):
    """A window of losses, as sums from which lines through several windows follow exactly."""

    size: int
    """Losses in the window."""
    mean: float
    """Their mean."""
    squares: float
    """Sum of squared deviations from the mean."""
    cross: float
    """Sum of deviation x (index - middle index)."""


class Trend(NamedTuple):
    """The least-squares line through all losses of some windows."""

    slope: float
    """Loss per step; negative is improving."""
    stderr: float
    """Standard error of the slope, for independent noise from batch to batch."""
    level: float
    """Mean loss."""
    steps: int
    """Losses behind it."""

    @property
    def sigmas(self) -> float:
        """The slope in standard errors."""
        return self.slope / self.stderr if self.stderr > 0 else math.copysign(math.inf, self.slope)

    def __str__(self) -> str:
        return f"{self.sigmas:+.1f} sigma over {self.steps} steps"


def clip_outliers(losses: Sequence[float]) -> list[float]:
    """The losses of a window, outliers brought to `OUTLIER_SIGMAS` robust sigmas from the median.

    One corrupted batch would otherwise pass for noise, and blind every decision until its window is forgotten.
    """
    middle = statistics.median(losses)
    reach = OUTLIER_SIGMAS * MAD_TO_SIGMA * statistics.median(abs(loss - middle) for loss in losses)
    return [min(max(loss, middle - reach), middle + reach) for loss in losses] if reach > 0 else list(losses)


def summarize_window(losses: Sequence[float]) -> WindowSums:
    """The sums of one window of at least one finite loss."""
    losses = clip_outliers(losses)
    count = len(losses)
    # Plain sums, because math.fsum would raise where these become infinite (and nothing is decided).
    mean = losses[0] + sum(loss - losses[0] for loss in losses) / count
    deviations = [loss - mean for loss in losses]
    middle = (count - 1) / 2
    cross = sum(d * (i - middle) for i, d in enumerate(deviations))
    return WindowSums(count, mean, sum(d * d for d in deviations), cross)


def fit_trend(windows: Sequence[WindowSums]) -> Trend:
    """The line through all losses of consecutive windows (at least two losses in all; through two, without noise to
    be measured, the standard error is infinite)."""
    total = sum(w.size for w in windows)
    origin = windows[0].mean  # relative to it, windows that are all alike give a slope of exactly 0
    level = origin + sum(w.size * (w.mean - origin) for w in windows) / total
    cross = squares = 0.0
    begin = 0
    for w in windows:
        offset = begin + (w.size - 1) / 2 - (total - 1) / 2  # from the middle of all windows to that of this one
        cross += w.cross + w.size * (w.mean - level) * offset
        squares += w.squares + w.size * (w.mean - level) * (w.mean - level)
        begin += w.size
    spread = total * (total * total - 1) / 12
    slope = cross / spread
    if total == 2:
        return Trend(slope, math.inf, level, total)
    residual = max(0.0, squares - slope * cross)
    return Trend(slope, math.sqrt(residual / (total - 2) / spread), level, total)


def move_onto_trend(windows: Sequence[WindowSums], newest: WindowSums) -> list[WindowSums]:
    """`windows` moved up or down by what puts `newest`, which follows them, on the line through them.

    For when the weights were replaced in between: slope and noise are still known, the level is not.
    """
    if not windows:
        return []
    trend = fit_trend(windows)
    expected = trend.level + trend.slope * (trend.steps + newest.size) / 2
    return [w._replace(mean=w.mean + newest.mean - expected) for w in windows]


def decide_by_noise(
    windows: Sequence[WindowSums], rules: NoiseRules, may_raise: bool, start_loss: float | None = None
) -> tuple[LRDecision, str]:
    """The decision for the windows since the last change (the newest last), and its reason.

    The newest half is judged as well: a steep fall that has ended still tilts the line through all of them.
    `start_loss` is the loss before training, where it is known.
    """
    newest, trend = windows[-1], fit_trend(windows)
    if len(windows) >= 2 and (jump := _jump(windows[-2], newest, rules)) is not None:
        return LRDecision.SPIKE_DECREASE, jump
    judged = [trend] if len(windows) >= 2 else []
    judged += [fit_trend(windows[len(windows) // 2 :])] if len(windows) >= 4 else []
    for part in judged:
        if part.slope > 0 and part.sigmas > rules.worsen_sigmas:
            return LRDecision.DECREASE, f"worsening ({part})"
    worth = _worth(trend.level, start_loss)
    gain = -trend.slope * newest.size / worth if worth else 0.0
    if may_raise and trend.sigmas < -rules.raise_sigmas and gain > rules.raise_gain:
        return LRDecision.INCREASE, f"improving ({gain:.2%} per window, {trend})"
    for part in judged:
        if _is_plateau(part, rules, start_loss):
            return LRDecision.DECREASE, f"plateau ({part})"
    return LRDecision.HOLD, "steady"


def _jump(before: WindowSums, after: WindowSums, rules: NoiseRules) -> str | None:
    variance = (
        before.squares / max(1, before.size - 1) / before.size + after.squares / max(1, after.size - 1) / after.size
    )
    rise = after.mean - before.mean
    if rise > rules.spike_sigmas * math.sqrt(variance) and rise > rules.spike_rise * abs(before.mean):
        return f"loss_spike ({after.mean:.4g} vs {before.mean:.4g})"
    return None


def _worth(level: float, start_loss: float | None) -> float:
    """What a gain is measured by: the loss, or `MOST_CONSTANT` times how far it has come if that is less. A constant in
    the loss makes any gain a small part of it, but not of what was gained before."""
    return abs(level) if start_loss is None else min(abs(level), MOST_CONSTANT * abs(start_loss - level))


def _is_plateau(trend: Trend, rules: NoiseRules, start_loss: float | None) -> bool:
    hoped_for = (-trend.slope + 2 * trend.stderr) * rules.plateau_steps
    return hoped_for < rules.plateau_gain * _worth(trend.level, start_loss)
