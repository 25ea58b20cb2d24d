"""The marks of the adjustments: one per adjustment on the learning rate, a thin line through the loss."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from aios.run_view.events import Adjustment
from aios.run_view.history import RunHistory
from aios.run_view.theme import Theme
from aios.run_view.timeline import Decision

MAX_MARKERS = 600
"""Marks per decision from which on those too close to be told apart are drawn as one."""
MAX_RULES = 60
"""Adjustments up to which each has a thin line through the loss, where there is one curve that it can belong to."""


class Markers(NamedTuple):
    """The marks of one decision in one run."""

    artist: Line2D
    """Its point `i` stands for `adjustments[i]`."""
    adjustments: list[Adjustment]
    """What is drawn; filled anew by each update."""


class AdjustmentMarks:
    """All marks of all runs, and which of them the mouse is at."""

    def __init__(self, histories: Sequence[RunHistory], loss: Axes, lr: Axes, theme: Theme) -> None:
        self.groups: list[Markers] = []
        self._meant: list[tuple[RunHistory, str]] = []  # run and decision of each group
        self._rules: list[Line2D] = []
        self._histories, self._lr = histories, lr
        for at, history in enumerate(histories):
            (rule,) = loss.plot(
                [], [], color=theme.muted, alpha=0.3, linewidth=0.7, zorder=1, transform=loss.get_xaxis_transform()
            )
            self._rules.append(rule)
            for decision in sorted({a.decision for a in history.adjustments}):
                mark, color = theme.decision(decision)
                if len(histories) > 1:  # whose it is matters more; what it is its shape says
                    color = theme.curves[at % len(theme.curves)]
                (artist,) = lr.plot(
                    [], [], mark, color=color, ms=8, markeredgecolor=theme.background, markeredgewidth=0.8, zorder=7
                )
                self.groups.append(Markers(artist, []))
                self._meant.append((history, decision))
        (self._ring,) = lr.plot(
            [], [], "o", ms=16, markerfacecolor="none", markeredgecolor=theme.text, markeredgewidth=1.6, zorder=8,
            clip_on=False,
        )  # fmt: skip

    def artists(self) -> Iterator[Artist]:
        """All that changes while the run goes on, lowest first."""
        yield from (*self._rules, *(group.artist for group in self.groups), self._ring)

    def refill(self) -> None:
        """Take the marks from the histories as they are now."""
        for history, rule in zip(self._histories, self._rules, strict=True):
            adjustments = history.adjustments
            clear = len(adjustments) <= MAX_RULES and len(self._histories) == len(history.ranks) == 1
            steps = [a.step for a in adjustments] if clear else []
            rule.set_data([x for s in steps for x in (s, s, math.nan)], [0.0, 1.0, math.nan] * len(steps))
        for (artist, shown), (history, decision) in zip(self.groups, self._meant, strict=True):
            shown[:] = _distinct([a for a in history.adjustments if a.decision == decision])
            artist.set_data([a.step for a in shown], [_height(history, a) for a in shown])

    def nearest(self, x: float, y: float, radius: float) -> Adjustment | None:
        """The adjustment whose mark is nearest to canvas pixel (x, y), None when none is within `radius` pixels."""
        best, found = radius, None
        for artist, adjustments in self.groups:
            if not adjustments:
                continue
            data = np.column_stack([artist.get_xdata(), artist.get_ydata()])
            pixels = self._lr.transData.transform(data)
            distances = np.nan_to_num(np.hypot(pixels[:, 0] - x, pixels[:, 1] - y), nan=np.inf)
            at = int(distances.argmin())
            if distances[at] <= best:
                best, found = float(distances[at]), adjustments[at]
        return found

    def highlight(self, decision: Decision | None) -> None:
        """Ring the mark of an adjustment, or where another decision stands on the curve; None takes the ring away."""
        if decision is None:
            self._ring.set_data([], [])
            return
        history = next((h for h in self._histories if decision in h.decisions), self._histories[0])
        change = decision.adjustment
        height = _height(history, change) if change is not None else _rate(history, decision.step, decision.rank)
        self._ring.set_data([decision.step], [height])


def _distinct(made: list[Adjustment]) -> list[Adjustment]:
    """All of them while they are few; else one for each of `MAX_MARKERS` stretches of the run, the newest."""
    if len(made) <= MAX_MARKERS:
        return made
    last = max(made[-1].step, 1)
    return list({MAX_MARKERS * a.step // last: a for a in made}.values())


def _height(history: RunHistory, adjustment: Adjustment) -> float:
    """Where its mark stands: at the new rate, or on the curve where an anneal has taken that down."""
    if any(p.kind == "anneal" and p.start < adjustment.step <= p.end for p in history.phases):
        rate = _rate(history, adjustment.step, adjustment.rank)
        return adjustment.new_lr if math.isnan(rate) else rate
    return adjustment.new_lr


def _rate(history: RunHistory, step: int, rank: int | None) -> float:
    """The learning rate that the curve shows at a step; NaN where there is none."""
    rates = history.series("lr", rank)
    return float(np.interp(step, rates.steps, rates.mean)) if len(rates) else math.nan
