"""The run in figures: as many beside each other as have room, so that none touches the next."""

from __future__ import annotations

import math
import tkinter as tk
from collections.abc import Mapping, Sequence
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.look import Look
from aios.gui.tooltip import Tooltip
from aios.quantities import show_duration
from aios.run_view.history import RunHistory, progress_text

_FIGURES = (
    ("step", "Step", "Optimizer steps done, of how many."),
    ("loss", "Training loss", "Newest training loss in nats per token."),
    ("eval_loss", "Evaluation loss", "Newest loss on text that is not trained on, in nats per token."),
    ("perplexity", "Perplexity", "Of the evaluation: among how many tokens the model is as good as guessing."),
    ("lr", "Learning rate", "Learning rate of the newest step."),
    ("grad_norm", "Gradient norm", "Gradient norm of the newest step, before clipping."),
    ("speed", "Tokens / s", "Training speed at the newest step."),
    ("eta", "Time left", "From the recent median time of a step; right after a resume, too."),
)
_GAP = 16  # between figures, pixels at 96 dpi


class Figures(ttk.Frame):
    """A heading and a number for each of them, and the progress of the run beneath."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector) -> None:
        super().__init__(parent, padding=(look.px(12), look.px(8)))
        self._look, self._columns = look, 0
        self._labels: dict[str, tuple[ttk.Label, ttk.Label]] = {}
        for name, title, tip in _FIGURES:
            heading = ttk.Label(self, text=title, style="Muted.TLabel")
            number = ttk.Label(self, text="—", style="Number.TLabel")
            self._labels[name] = (heading, number)
            for label in (heading, number):
                Tooltip(label, tip, above=True)
            inspector.name(f"number.{name}", number)
        self._widest = dict.fromkeys(self._labels, 0)  # since the run is on show, so that they keep their places
        self._progress = ttk.Progressbar(self, maximum=1.0)
        Tooltip(self._progress, "Steps done, of those the run was asked for.", above=True)
        inspector.name("progress", self._progress)
        inspector.fact("progress", lambda: round(float(self._progress["value"]), 4))
        self.bind("<Configure>", lambda _: self._arrange())

    def begin(self) -> None:
        """Another run is on show: its figures may be narrower."""
        self._widest = dict.fromkeys(self._labels, 0)

    def show(self, history: RunHistory, now: float) -> None:
        """Show how the run stands; `now` in unix seconds."""
        for name, text in figure_texts(history, now).items():
            label = self._labels[name][1]
            if str(label.cget("text")) != text:
                label.configure(text=text)
        total = history.total_steps
        self._progress.configure(value=min(1.0, history.step / total) if total else 0.0)
        self._arrange()

    def _arrange(self) -> None:
        """Put them into rows, if others than now."""
        for name, labels in self._labels.items():
            self._widest[name] = max(self._widest[name], *(label.winfo_reqwidth() for label in labels))
        room = self.winfo_width() - 2 * self._look.px(12)
        gap = self._look.px(_GAP)
        columns = columns_that_fit(list(self._widest.values()), room, gap)
        if columns == self._columns or room <= 1:
            return
        self._columns = columns
        for at, labels in enumerate(self._labels.values()):
            row, column = divmod(at, columns)
            for below, label in enumerate(labels):
                above, apart = self._look.px(8) if row and not below else 0, gap if column else 0
                label.grid(row=2 * row + below, column=column, sticky="w", pady=(above, 0), padx=(apart, 0))
        for column in range(len(_FIGURES)):
            self.columnconfigure(column, weight=int(column < columns))
        last = 2 * len(_FIGURES)
        self._progress.grid(row=last, column=0, columnspan=columns, sticky="ew", pady=(self._look.px(8), 0))


def columns_that_fit(widths: Sequence[int], room: int, gap: int) -> int:
    """In how many columns labels of these `widths`, filled row by row, fit into `room` pixels, `gap` apart.

    The most columns with the fewest rows; at least one column.
    """
    for rows in range(1, len(widths) + 1):
        columns = math.ceil(len(widths) / rows)
        if sum(max(widths[c::columns]) for c in range(columns)) + (columns - 1) * gap <= room:
            return columns
    return 1


def figure_texts(history: RunHistory, now: float) -> Mapping[str, str]:
    """The run in figures, ready to be read; NaN is shown as NaN, what is not known as a dash."""
    return {
        "step": progress_text(history.step, history.total_steps),
        "loss": _newest(history, history.loss_key, ".4f"),
        "eval_loss": _newest(history, "eval_loss", ".4f"),
        "perplexity": _newest(history, "ppl", ".1f"),
        "lr": _newest(history, "lr", ".3g"),
        "grad_norm": _newest(history, "grad_norm", ".3g"),
        "speed": _newest(history, "tokens_per_sec", ",.0f"),
        "eta": show_duration(left) if (left := history.eta_seconds(now)) is not None else "—",
    }


def _newest(history: RunHistory, key: str, form: str) -> str:
    series = history.series(key)
    if not len(series):
        return "—"
    value = float(series.mean[-1])
    return format(value, form) if math.isfinite(value) and not series.non_finite[-1] else "NaN"
