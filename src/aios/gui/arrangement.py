"""Where form, list and run stand: side by side, the form folded away, or in a narrow window each behind a tab."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.form_panel import FormPanel
from aios.gui.look import Look
from aios.gui.run_panel import RunPanel
from aios.gui.runs_panel import RunsPanel
from aios.gui.try_panel import TryPanel

_LEFT = 388
_WIDE = 1000  # from this width on, at 96 dpi, the run stands beside the form
_TABS = ("HRM Training", "Runs", "Try it")
_SETTLED_MS = 200  # a tab brings its focus into view first


class Arrangement:
    """Fill it with the panels; it asks for the room they get.

    Wide: tabs of form, list and trial on the left, the run on the right. Folded, the run has the whole width. Narrow:
    the run is a tab, too.
    """

    def __init__(self, root: tk.Tk, look: Look, inspector: Inspector, folded: bool) -> None:
        """`folded`: whether the form is away once the first run is on show."""
        self._root, self._look = root, look
        self._layout: str | None = None
        self._has_run = False
        self.folded = folded
        """Whether the form is folded away while a run is on show."""
        self.outer = ttk.Frame(root, style="Window.TFrame", padding=look.px(12))
        self.outer.pack(fill="both", expand=True)
        self.outer.rowconfigure(0, weight=1)
        self.tabs = ttk.Notebook(self.outer, width=look.px(_LEFT))
        inspector.name("outer", self.outer)
        inspector.name("tabs", self.tabs)
        inspector.fact("tab", lambda: self.tabs.index("current"))

    def fill(self, form: FormPanel, runs: RunsPanel, trial: TryPanel, run: RunPanel) -> None:
        """Take the panels of form, list and trial, which are children of `tabs`, and the run, one of `outer`."""
        self._panels = (form, runs, trial)
        for panel, title in zip(self._panels, _TABS, strict=True):
            self.tabs.add(panel, text=title)
        self._run, self._runs = run, runs
        self.tabs.bind("<<NotebookTabChanged>>", lambda _: self._set_width())
        runs.bind("<<WantedChanged>>", lambda _: self._set_width())
        run.fold.configure(command=self.toggle)
        self.outer.bind("<Configure>", lambda event: self._arrange(event.width))

    def _set_width(self) -> None:
        """Give the list the width that it wants, up to half of the window; the form always has the same."""
        width = self._look.px(_LEFT)
        if self.tabs.select() == str(self._runs):
            width = max(width, min(self._runs.wanted, self.outer.winfo_width() // 2))
        if int(str(self.tabs.cget("width"))) != width:
            self.tabs.configure(width=width)

    def open(self, tab: int) -> None:
        """Bring the form (0), the list of runs (1) or the trial (2) to the front."""
        self.fold(False)
        self._to_tab(tab)

    def _to_tab(self, tab: int) -> None:
        """Bring a tab to the front, and the keyboard into it, where it is not."""
        self.tabs.select(tab)
        panel = self._panels[tab]
        if not _holds(panel, self._focus):
            self.tabs.update_idletasks()  # what is not mapped yet would get the keyboard only later
            panel.begin()

    @property
    def _focus(self) -> str:
        """Tk's path of the widget that has the keyboard: not all have a name in Python."""
        return str(self._root.tk.call("focus"))

    def toggle(self) -> None:
        """Fold the form away, or bring it back; behind tabs: go from the one to the other."""
        if self._layout == "narrow" and self.tabs.select() == str(self._run):
            self._to_tab(0)
        elif self._layout == "narrow":
            self.to_run()
        elif self._has_run:
            self.fold(not self.folded)

    def fold(self, folded: bool) -> None:
        """Have the form away or there; without a run on show it always is."""
        self.folded = folded
        self._put()

    def show_run(self, first: bool = False) -> None:
        """A run is on show: the form folds away for it; for the `first` one it stands as it was left."""
        self._has_run = True
        self.fold(self.folded or not first)
        if self._layout == "narrow":
            self.to_run()

    def to_run(self) -> None:
        """Bring the run to the front, where it is behind a tab; else give it all the room."""
        if self._layout == "narrow":
            self.tabs.select(self._run)
            self._root.after(_SETTLED_MS, self._run.scroll.to_top)
        elif self._has_run:
            self.fold(True)
        self._run.plot.widget.focus_set()

    def _arrange(self, width: int) -> None:
        """Put the run beside form and list where there is room, else behind a tab of its own."""
        layout = "wide" if width >= self._look.px(_WIDE) else "narrow"
        if layout == self._layout:
            return
        self._layout = layout
        if layout == "narrow":
            self._run.grid_forget()
            self.tabs.add(self._run, text="Run")
            self._run.lift()
        elif len(self.tabs.tabs()) > len(_TABS):
            self.tabs.forget(self._run)
        self._put()
        if layout == "narrow" and self._has_run:
            self.to_run()

    def _put(self) -> None:
        wide = self._layout == "wide"
        away = wide and self._has_run and self.folded
        if away and _holds(self.tabs, self._focus):
            self._run.plot.widget.focus_set()
        if away:
            self.tabs.grid_remove()
        else:
            self.tabs.grid(row=0, column=0, sticky="nsew")
        if wide:
            self._run.grid(row=0, column=1, sticky="nsew", padx=(0 if away else self._look.px(12), 0))
        self.outer.columnconfigure(0, weight=0 if wide else 1)
        self.outer.columnconfigure(1, weight=1 if wide else 0)
        self._run.show_fold("Show form" if away else "Hide form", wide and self._has_run)


def _holds(outside: tk.Misc, path: str) -> bool:
    return path.startswith(f"{outside}.")
