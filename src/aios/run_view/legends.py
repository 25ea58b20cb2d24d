"""Legends that stand above their picture, never on it: what they say and how many entries fit in a row."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from aios.run_view.curves import Curve, heights
from aios.run_view.history import RunHistory
from aios.run_view.theme import Theme

Entries = list[tuple[str, Artist]]
_LABEL_LENGTH = 32


def loss_entries(
    runs: Sequence[tuple[str, RunHistory]], curves: Sequence[Curve], entropy: Line2D | None, theme: Theme
) -> Entries:
    """What the upper picture shows."""
    entries: Entries = [(_curve_name(runs, c), c.evaluation if c.merged else c.smooth) for c in curves]
    if any(len(heights(curve.evaluation)) for curve in curves if not curve.merged):
        alone = len(curves) == 1
        line = Line2D([], [], color=theme.text if alone else theme.muted, marker="o", ms=4.5, linewidth=1.1)
        line.set_linestyle("-" if alone else "--")
        entries.append(("evaluation loss", line))
    if entropy is not None:
        entries.append(("unigram entropy of the text", entropy))
    if any(len(heights(curve.bad)) for curve in curves):
        entries.append(("NaN or infinite", curves[0].bad))
    return entries


def lr_entries(runs: Sequence[tuple[str, RunHistory]], phases: Sequence[str], theme: Theme) -> Entries:
    """What the lower picture shows: decisions with their number, then phases."""
    counts = Counter(a.decision for _, history in runs for a in history.adjustments)
    entries: Entries = []
    for decision in sorted(counts, key=lambda name: (name not in theme.decisions, name)):
        mark, color = theme.decision(decision)
        handle = Line2D([], [], marker=mark, color=color, ms=8, linestyle="none")
        entries.append((f"{decision.replace('_', ' ')} ({counts[decision]:,})", handle))
    return entries + [(name, Patch(color=theme.phases[name])) for name in phases]


def columns_that_fit(entries: Entries, width: float, theme: Theme) -> int:
    """How many entries fit side by side over `width` inches."""
    if not entries:
        return 1
    letter = 0.56 * theme.font_size / 72
    widest = max(len(name) + 6 for name, _ in entries) * letter
    return max(1, min(len(entries), int(width / widest)))


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
    if len(curve.history.ranks) > 1:
        worker = f"worker {curve.rank}" if curve.rank is not None else "all workers"
        return worker if len(runs) == 1 else f"{name}, {worker}"
    return "training loss (smoothed)" if len(runs) == 1 else name
