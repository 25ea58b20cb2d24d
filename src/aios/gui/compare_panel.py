"""Runs side by side in numbers: what each has reached, and the settings in which they differ."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Sequence
from tkinter import font as tkfont
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.column_widths import middle_ellipsis
from aios.gui.look import Look
from aios.gui.run_feed import RunFeed
from aios.gui.scrolling import put_with_scrollbars
from aios.gui.tooltip import Tooltip
from aios.run_view.comparing import Row, differing_settings, final_figures
from aios.run_view.theme import THEMES

_RUN_WIDTH = 112
_HEADING = "Settings that differ"
_SWATCH = 10


class ComparePanel(ttk.Frame):
    """A table with a column for each run, marked with the colour that its curve has."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector) -> None:
        super().__init__(parent, padding=look.px(12))
        self._look = look
        self._shown: tuple[list[str], list[Row], str] = ([], [], "")
        self._swatches: list[tk.PhotoImage] = []
        title = ttk.Label(self, text="Runs side by side", style="Strong.TLabel")
        title.grid(row=0, column=0, sticky="w", pady=(0, look.px(4)))
        self.tree = ttk.Treeview(self, show="headings", height=6)
        put_with_scrollbars(self.tree, row=1)
        Tooltip(self.tree, "What each run has reached, and the settings that are not the same in all of them.")
        inspector.name("compare", self.tree)

    def show(self, feeds: Sequence[RunFeed]) -> None:
        """Show the runs as they are now."""
        labels = [feed.label for feed in feeds]
        figures = final_figures([feed.history for feed in feeds])
        settings = differing_settings([feed.history.config for feed in feeds])
        shown = (labels, [*figures, *settings], self._look.palette.name)
        if shown == self._shown:
            return
        if labels != self._shown[0] or shown[2] != self._shown[2]:
            self._head(labels)
        self._shown = shown
        named = [name for name, _ in shown[1]] + [_HEADING]
        needed = max(tkfont.nametofont("TkDefaultFont", self).measure(name) for name in named) + self._look.px(24)
        self.tree.column("what", width=needed, minwidth=needed, anchor="w", stretch=False)
        self.tree.delete(*self.tree.get_children())
        for name, values in figures:
            self.tree.insert("", "end", values=(name, *values))
        heading = _HEADING if settings else "No setting differs"
        self.tree.insert("", "end", values=(heading,), tags=("heading",))
        for name, values in settings:
            self.tree.insert("", "end", values=(name, *values))

    def _head(self, labels: Sequence[str]) -> None:
        """A column for each run."""
        px, colors = self._look.px, THEMES[self._look.palette.name].curves
        columns = [str(at) for at in range(len(labels))]
        self.tree.configure(columns=("what", *columns))
        self._swatches = [_swatch(self, px(_SWATCH), colors[at % len(colors)]) for at in range(len(labels))]
        room = px(_RUN_WIDTH) - px(_SWATCH) - 2 * px(8)
        for name, label, swatch in zip(columns, labels, self._swatches, strict=True):
            told = middle_ellipsis(label, room, self._look.fonts["small"].measure)
            self.tree.heading(name, text=told, image=swatch, anchor="w")
            self.tree.column(name, width=px(_RUN_WIDTH), minwidth=px(_RUN_WIDTH), anchor="w", stretch=True)
        self.tree.tag_configure("heading", font=self._look.fonts["strong"])


def _swatch(master: tk.Misc, size: int, color: str) -> tk.PhotoImage:
    """A square of one colour."""
    image = tk.PhotoImage(master=master, width=size, height=size)
    image.put(color, to=(0, 0, size, size))
    return image
