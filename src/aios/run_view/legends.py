"""Legends that stand above their picture, never on it: what they say and how many entries fit in a row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from aios.run_view.axes import letters_in
from aios.run_view.curves import Curve, heights
from aios.run_view.history import RunHistory
from aios.run_view.reading import name_of
from aios.run_view.theme import Theme

Entries = list[tuple[str, Artist]]
_LABEL_LENGTH = 32


def loss_entries(
    runs: Sequence[tuple[str, RunHistory]], curves: Sequence[Curve], entropy: Line2D | None, theme: Theme
) -> Entries:
    """What the upper picture shows."""
    entries: Entries = [(_curve_name(runs, c), _handle(c, len(runs))) for c in curves]
    if any(len(heights(curve.evaluation)) for curve in curves if not curve.merged):
        alone = len(curves) == 1
        line = Line2D([], [], color=theme.text if alone else theme.muted, marker="o", ms=4.5, linewidth=1.1)
        line.set_linestyle("-" if alone else "--")
        best = curves[0].history.best_evaluation(curves[0].rank) if alone else None
        entries.append(("evaluation loss", line))
        if best is not None:
            ring = Line2D([], [], marker="o", ms=9, markerfacecolor="none", color=theme.text, linestyle="none")
            entries.append((f"best {best[1]:.4g} at step {best[0]:,.0f}", ring))
    if entropy is not None:
        entries.append(("unigram entropy", entropy))
    if any(len(heights(curve.bad)) for curve in curves):
        entries.append(("NaN or infinite", curves[0].bad))
    return entries


def _handle(curve: Curve, runs: int) -> Line2D:
    """How a curve is shown in the legend: of runs laid over each other with the mark of its evaluations."""
    if curve.merged or runs == 1:
        return curve.evaluation if curve.merged else curve.smooth
    line = Line2D([], [], color=curve.smooth.get_color(), linestyle=curve.smooth.get_linestyle(), linewidth=1.9)
    line.set_marker(curve.mark if len(heights(curve.evaluation)) else "")
    return line


def lr_entries(
    runs: Sequence[tuple[str, RunHistory]],
    phases: Sequence[str],
    bounds: tuple[float, float] | None,
    theme: Theme,
) -> Entries:
    """What the lower picture shows: decisions with their number, then phases, then the bounds of the rate."""
    counts = Counter(a.decision for _, history in runs for a in history.adjustments)
    entries: Entries = []
    for decision in sorted(counts, key=lambda name: (name not in theme.decisions, name)):
        mark, color = theme.decision(decision)
        handle = Line2D([], [], marker=mark, color=color if len(runs) == 1 else theme.muted, ms=8, linestyle="none")
        entries.append((f"{decision.replace('_', ' ')} ({counts[decision]:,})", handle))
    entries += [(name, Patch(color=theme.phases[name])) for name in phases]
    if bounds is not None:
        line = Line2D([], [], color=theme.muted, linestyle=(0, (4, 3)), linewidth=1.0)
        entries.append((f"lr_min {bounds[0]:.3g}, lr_max {bounds[1]:.3g}", line))
    return entries


def columns_that_fit(entries: Entries, width: float, theme: Theme) -> int:
    """How many entries fit side by side over `width` inches."""
    room = letters_in(width, theme.font_size)
    for columns in range(len(entries), 1, -1):
        rows, more = divmod(len(entries), columns)  # matplotlib fills the columns one after the other
        ends = [rows * (at + 1) + min(at + 1, more) for at in range(columns)]
        parts = [entries[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
        if sum(max(len(name) + 6 for name, _ in part) for part in parts) <= room:
            return columns
    return 1


def rows_of(entries: Entries, columns: int) -> int:
    """Rows of a legend."""
    return math.ceil(len(entries) / columns)


def put_legend(axes: Axes, entries: Entries, columns: int, theme: Theme) -> None:
    """Above `axes`, flush left."""
    if not entries:
        return
    axes.legend(
        [handle for _, handle in entries], [name for name, _ in entries], loc="lower left",
        bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, borderaxespad=0.2, borderpad=0.2,
        handlelength=1.6, handletextpad=0.5, columnspacing=1.6, fontsize=theme.font_size, labelcolor=theme.text,
    )  # fmt: skip


def _curve_name(runs: Sequence[tuple[str, RunHistory]], curve: Curve) -> str:
    label = next(name for name, history in runs if history is curve.history)
    name = label if len(label) <= _LABEL_LENGTH else label[: _LABEL_LENGTH - 1] + "\u2026"
    if curve.merged:
        return "merged model (evaluation)" if len(runs) == 1 else f"{name}, merged (evaluation)"
    if len(curve.history.ranks) > 1 and curve.rank is None:
        return "all workers" if len(runs) == 1 else f"{name}, all workers"
    if len(curve.history.ranks) > 1 or len(runs) > 1:
        return name_of(name, curve.rank, len(runs) > 1)
    return "training loss (smoothed)"
