"""The lines of one worker of one run, and how they are filled from its history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon

from aios.run_view.history import RunHistory
from aios.run_view.pointing import DrawnCurves, Points
from aios.run_view.series import Floats, Series
from aios.run_view.smoothing import smoothed
from aios.run_view.theme import Theme
from aios.run_view.view import SMOOTHINGS, View

POINTS = 1200
"""Points of a curve that are drawn at most: about one per pixel column."""
MAX_EVAL_MARKS = 60
"""Evaluations up to which each is marked with a dot."""
EVALUATION_MARKS = ("o", "s", "D", "^", "v", "P", "X")
"""Of the runs that are laid over each other, one each."""
LineStyle = Literal["-", "--", ":", "-."]
LINE_STYLES: tuple[LineStyle, ...] = ("-", "--", ":", "-.")


@dataclass(frozen=True)
class Look:
    """How the curves of one worker differ from those of others."""

    color: str
    """Of its lines."""
    style: LineStyle
    """matplotlib line style."""
    evaluation: str
    """Colour of its evaluation loss."""
    evaluation_style: LineStyle
    """Line style of its evaluation loss."""
    faint: float
    """Opacity of the raw loss."""
    marker: str = "o"
    """matplotlib marker of its evaluations."""


def heights(line: Line2D) -> Floats:
    """The values that a line goes through."""
    return np.asarray(line.get_ydata(), dtype=np.float64)


def widths(line: Line2D) -> Floats:
    """The steps that a line goes through."""
    return np.asarray(line.get_xdata(), dtype=np.float64)


class Curve:
    """One worker's artists in both pictures; of the model that several workers merge, only its evaluations."""

    def __init__(self, history: RunHistory, rank: int | None, look: Look, axes: tuple[Axes, Axes], theme: Theme):
        self.history, self.rank, self.mark = history, rank, look.marker
        self.merged = rank not in history.ranks
        """Whether this is the model that the workers merge: it is evaluated, it does not train."""
        loss, lr = axes
        (self.raw,) = loss.plot([], [], color=look.color, alpha=look.faint, linewidth=0.8, zorder=2)
        self.band = Polygon([[0.0, 0.0]], closed=True, color=look.color, alpha=0.8 * look.faint, linewidth=0, zorder=2)
        loss.add_patch(self.band)
        (self.smooth,) = loss.plot([], [], color=look.color, linestyle=look.style, linewidth=1.9, zorder=4)
        (self.evaluation,) = loss.plot(
            [], [], look.marker, color=look.evaluation, ms=4.5, linewidth=1.1, linestyle=look.evaluation_style,
            markeredgecolor=theme.background, markeredgewidth=0.6, zorder=5,
        )  # fmt: skip
        (self.best,) = loss.plot(
            [], [], "o", ms=11, markerfacecolor="none", markeredgecolor=look.evaluation, markeredgewidth=1.4, zorder=5
        )
        (self.bad,) = loss.plot(
            [], [], "|", color=theme.decision("spike_decrease").color, ms=9, markeredgewidth=1.4, zorder=6,
            transform=loss.get_xaxis_transform(),
        )  # fmt: skip
        self.rates: dict[str, Line2D] = {}
        for group, key in enumerate(k for k in history.keys if k == "lr" or k.startswith("lr[")):
            style = look.style if group == 0 else LINE_STYLES[group % len(LINE_STYLES)]
            (self.rates[key],) = lr.plot([], [], color=look.color, linestyle=style, linewidth=1.6, zorder=3)

    def artists(self) -> Iterator[Artist]:
        """All that changes while the run goes on, lowest first."""
        yield from (self.band, self.raw, self.smooth, self.evaluation, self.best, self.bad, *self.rates.values())

    def refill(self, view: View) -> None:
        """Take the lines from the history as it is now, so much of them as is in view."""
        history, rank = self.history, self.rank
        if rank == history.ranks[0] or history.has("eval_loss", rank):
            self._set_evaluation(history.series("eval_loss", rank), history.best_evaluation(rank), view)
        if self.merged:
            return
        all_raw = history.series(history.loss_key, rank)
        raw = _shown(all_raw, view)
        self._set_raw(raw)
        share = SMOOTHINGS[view.smoothing]
        smooth = history.series("smooth", rank) if share is None else smoothed(all_raw, share)
        smooth = _shown(smooth, view)
        self.smooth.set_data(smooth.steps, smooth.mean)
        bad = raw.steps[raw.non_finite > 0]
        self.bad.set_data(bad, np.full(len(bad), 0.975))
        for key, line in self.rates.items():
            if key == "lr" or history.has(key, rank):
                rates = _shown(history.series(key, rank), view)
                line.set_data(rates.steps, np.where(rates.mean > 0, rates.mean, np.nan))

    def _set_evaluation(self, evals: Series, best: tuple[float, float] | None, view: View) -> None:
        self.best.set_data([], []) if best is None else self.best.set_data([best[0]], [best[1]])
        evals = _shown(evals, view)
        self.evaluation.set_data(evals.steps, evals.mean)
        self.evaluation.set_marker(self.mark if len(evals) <= MAX_EVAL_MARKS else "")

    def drawn(self, label: str) -> DrawnCurves:
        """What is drawn, as numbers."""
        rates = {key: _points(line) for key, line in self.rates.items() if len(heights(line))}
        losses = (_points(self.raw), _points(self.smooth), _points(self.evaluation))
        return DrawnCurves(label, self.rank, str(self.smooth.get_color()), *losses, rates)

    def _set_raw(self, raw: Series) -> None:
        """Each value as a line; once several share a point, the band between the least and the largest."""
        several = not np.array_equal(raw.low, raw.high, equal_nan=True)
        self.raw.set_visible(not several)
        self.band.set_visible(several)
        self.raw.set_data(raw.steps, raw.mean)
        if several:
            known = np.isfinite(raw.mean)
            steps, low, high = raw.steps[known], raw.low[known], raw.high[known]
            outline = np.concatenate([steps, steps[::-1]]), np.concatenate([high, low[::-1]])
            self.band.set_xy(np.column_stack(outline))

    def extremes(self, view: View) -> list[Floats]:
        """Least and largest raw losses in view, for the limits of the axis."""
        if self.merged:
            return []
        raw = self.history.series(self.history.loss_key, self.rank)
        raw = raw if view.steps is None else raw.within(*view.steps)
        return [raw.low, raw.high]


def _shown(series: Series, view: View) -> Series:
    return (series if view.steps is None else series.within(*view.steps)).thinned(POINTS)


def _points(line: Line2D) -> Points:
    return widths(line), heights(line)
