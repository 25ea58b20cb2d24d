"""The adjustments of the learning rate, newest first, and all there is to know about the chosen one."""

from __future__ import annotations

import math
import tkinter as tk
from collections.abc import Callable
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.look import Look
from aios.gui.read_only_text import ReadOnlyText
from aios.gui.scrolling import AutoScrollbar
from aios.gui.tooltip import Tooltip
from aios.run_view.events import Adjustment
from aios.run_view.reasons import plain_reason

MOST_ROWS = 1000
"""Rows shown; of more adjustments, the newest."""

Labelled = tuple[str, Adjustment]
"""(label of the run, adjustment)."""

_COLUMNS = (
    ("step", "Step", 60),
    ("who", "Run", 110),
    ("decision", "Decision", 100),
    ("rates", "Learning rate", 150),
    ("change", "Change", 66),
)
_METRICS = {
    "loss_avg": "mean loss",
    "improvement_rate": "improvement",
    "cv": "coefficient of variation",
    "trend": "slope per step",
}


class AdjustmentTable(ttk.Frame):
    """A list and, beside it, the details of its selection; `chosen(item)` is called when the selection moves."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, chosen: Callable[[Labelled], None]) -> None:
        super().__init__(parent, padding=look.px(10))
        self._look, self._chosen = look, chosen
        self._shown: list[Labelled] = []
        self._by_row: dict[str, Labelled] = {}
        self._rows: dict[Labelled | int, str] = {}
        self.title = ttk.Label(self, text="Adjustments", style="Strong.TLabel")
        self.title.grid(row=0, column=0, sticky="w", pady=(0, look.px(4)))
        self.tree = ttk.Treeview(self, columns=[name for name, _, _ in _COLUMNS], show="headings", height=3)
        self.tree["displaycolumns"] = ("step", "decision", "rates", "change")
        for name, heading, width in _COLUMNS:
            right = name in ("step", "change")
            self.tree.heading(name, text=heading, anchor="e" if right else "w")
            self.tree.column(name, width=look.px(width), minwidth=look.px(width), anchor="e" if right else "w")
        self.tree.column("decision", stretch=True)
        bar = AutoScrollbar(self, orient="vertical", command=self.tree.yview)
        self.tree.configure(yscrollcommand=bar.set)
        self.tree.grid(row=1, column=0, sticky="nsew")
        bar.grid(row=1, column=1, sticky="ns")
        self.details = ReadOnlyText(self, look)
        self.rowconfigure(1, weight=1)
        self._least_width = look.px(sum(width for _, _, width in _COLUMNS[:1] + _COLUMNS[2:]) + 4)
        self.tree.bind("<<TreeviewSelect>>", self._selected)
        Tooltip(self.tree, "Every change of the learning rate, newest first. Choose one to see it in the plot.")
        inspector.name("adjustments", self.tree)
        inspector.name("details", self.details.text)
        Tooltip(self.details.text, "What is known of the chosen adjustment: decision, rates, reason, metrics.")
        inspector.name("adjustments-title", self.title)
        self.show([], 0)

    def arrange(self, narrow: bool) -> None:
        """The details beneath the list where there is not the width for both."""
        gap = self._look.px(14)
        self.columnconfigure(0, weight=1, minsize=0 if narrow else self._least_width)
        self.rowconfigure(2, minsize=self._look.px(96) if narrow else 0)
        self.columnconfigure(2, weight=0 if narrow else 1, minsize=0 if narrow else self._look.px(150))
        if narrow:
            self.details.grid(row=2, column=0, columnspan=2, rowspan=1, sticky="nsew", padx=0, pady=(gap // 2, 0))
        else:
            self.details.grid(row=0, column=2, columnspan=1, rowspan=2, sticky="nsew", padx=(gap, 0), pady=0)

    def show(self, adjustments: list[Labelled], count: int, by_run: bool = False) -> None:
        """Show `adjustments` (in step order) of `count` made; with a column for run or worker if `by_run`."""
        recent = adjustments[-MOST_ROWS:]
        columns = [name for name, _, _ in _COLUMNS if by_run or name != "who"]
        if list(self.tree["displaycolumns"]) != columns:
            self.tree["displaycolumns"] = columns
        self.title.configure(text=f"Adjustments of the learning rate ({count:,})")
        if recent != self._shown:
            self._update_rows(recent)
        if not self.tree.selection():
            nothing = (
                "No adjustments yet."
                if not recent
                else "Choose an adjustment, here or in the plot, to see why it was made."
            )
            self.details.show(nothing)

    def _update_rows(self, recent: list[Labelled]) -> None:
        kept = len(self._shown) if recent[: len(self._shown)] == self._shown else 0
        if not kept:
            self.tree.delete(*self.tree.get_children())
            self._by_row.clear()
        for who, adjustment in recent[kept:]:
            row = self.tree.insert("", 0, values=_cells(who, adjustment))
            self._by_row[row] = (who, adjustment)
        self._shown = recent

    def select(self, item: Labelled) -> None:
        """Select the row of an adjustment and bring it into view."""
        row = next((row for row, shown in self._by_row.items() if shown == item), None)
        if row is not None:
            self.tree.selection_set(row)
            self.tree.focus(row)
            self.tree.see(row)

    def _selected(self, _event: object) -> None:
        selection = self.tree.selection()
        if selection and selection[0] in self._by_row:
            who, adjustment = self._by_row[selection[0]]
            self.details.show(describe(adjustment))
            self._chosen((who, adjustment))


def _cells(who: str, adjustment: Adjustment) -> tuple[str, ...]:
    rates = f"{show_lr(adjustment.old_lr)} → {show_lr(adjustment.new_lr)}"
    return (f"{adjustment.step:,}", who, show_decision(adjustment), rates, show_change(adjustment))


def show_decision(adjustment: Adjustment) -> str:
    """`spike_decrease` as `spike decrease`."""
    return adjustment.decision.replace("_", " ")


def show_lr(lr: float) -> str:
    """A learning rate with three significant digits."""
    return f"{lr:.3g}"


def show_change(adjustment: Adjustment) -> str:
    """The change in percent, or a dash where the log has none."""
    return f"{adjustment.change_pct:+.0f} %" if math.isfinite(adjustment.change_pct) else "—"


def describe(adjustment: Adjustment) -> str:
    """Decision, old and new rate, reason and metrics of an adjustment, as a few lines."""
    lines = [
        f"Step {adjustment.step:,}: {show_decision(adjustment)}",
        f"{show_lr(adjustment.old_lr)} → {show_lr(adjustment.new_lr)} ({show_change(adjustment)})",
        f"Because {plain_reason(adjustment.reason)}.",
    ]
    numbers = [
        f"{_METRICS.get(name, name.replace('_', ' '))} {_number(value)}" for name, value in adjustment.metrics.items()
    ]
    if numbers:
        lines.append(", ".join(numbers))
    return "\n".join(lines)


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else "not finite" if value is None else str(value)
