"""The runs that wait, beneath the list of brains: put in order, started, removed."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable
from functools import partial
from tkinter import font as tkfont
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.column_widths import middle_ellipsis
from aios.gui.field_widgets import wrapped_label
from aios.gui.look import Look
from aios.gui.queue_control import QueueControl
from aios.gui.run_queue import QueuedRun
from aios.gui.scrolling import AutoScrollbar
from aios.gui.tooltip import Tooltip

_BUTTONS = (
    ("start", "Start now", "Start the selected run at once, even beside another."),
    ("up", "Up", "Let the selected run start earlier (Alt+Up)."),
    ("down", "Down", "Let the selected run start later (Alt+Down)."),
    ("remove", "Remove", "Take the selected run out of the queue (Delete); nothing of it is on disk yet."),
)
_KEYS = {"<Alt-Up>": "up", "<Alt-Down>": "down", "<Delete>": "remove"}
_TIP = "Runs that wait, the next one first. Alt+Up and Alt+Down move the selected one, Delete removes it."
_MOST_ROWS = 5
_STEPS, _CELL_PADDING = 90, 24  # pixels at 96 dpi


class QueuePanel(ttk.Frame):
    """Is there only while something is queued."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, control: QueueControl) -> None:
        super().__init__(parent)
        self._look, self._control = look, control
        self._runs: dict[str, QueuedRun] = {}
        self.columnconfigure(0, weight=1)
        self._outlook = wrapped_label(self, "Muted.TLabel")
        self._outlook.grid(row=0, column=0, columnspan=2, sticky="ew", pady=(look.px(8), look.px(4)))
        self.tree = ttk.Treeview(self, columns=("name", "steps"), show="headings", height=1, selectmode="browse")
        self.tree.heading("name", text="Queued", anchor="w")
        self.tree.heading("steps", text="Steps", anchor="e")
        self.tree.column("name", width=look.px(100), anchor="w", stretch=True)
        self.tree.column("steps", width=look.px(_STEPS), anchor="e", stretch=False)
        bar = AutoScrollbar(self, orient="vertical", command=self.tree.yview)
        self.tree.configure(yscrollcommand=bar.set)
        self.tree.grid(row=1, column=0, sticky="ew")
        bar.grid(row=1, column=1, sticky="ns")
        self._problem = wrapped_label(self, "Problem.TLabel")
        self._problem.grid(row=2, column=0, columnspan=2, sticky="ew", pady=(look.px(4), 0))
        self._acts: dict[str, Callable[[QueuedRun], None]] = {
            "start": control.start_now, "up": partial(self._move, -1), "down": partial(self._move, 1),
            "remove": self._remove,
        }  # fmt: skip
        self._build_buttons(inspector)
        self._tip = Tooltip(self.tree, _TIP)
        self.tree.bind("<Motion>", self._point_at)
        self.tree.bind("<<TreeviewSelect>>", lambda _: self._refresh())
        self.tree.bind("<Configure>", lambda _: self._fill())
        for key, name in _KEYS.items():
            self.tree.bind(key, partial(self._key, name))
        for name, widget in (("queue", self.tree), ("queue-outlook", self._outlook), ("queue-problem", self._problem)):
            inspector.name(name, widget)

    def _build_buttons(self, inspector: Inspector) -> None:
        row = ttk.Frame(self)
        row.grid(row=3, column=0, columnspan=2, sticky="ew")
        self._buttons = {}
        for column, (name, text, tip) in enumerate(_BUTTONS):
            row.columnconfigure(column, weight=1, uniform="button")
            button = ttk.Button(row, text=text, command=partial(self._press, name))
            button.grid(row=0, column=column, sticky="ew", padx=self._look.px(4), pady=self._look.px(4))
            Tooltip(button, tip)
            inspector.name(f"queue.{name}", button)
            self._buttons[name] = button

    def show(self) -> None:
        """Show the queue as it is; the selection stays where it was."""
        self._runs = {run.file.name: run for run in self._control.queue.runs}
        if not self._runs:
            self.grid_remove()
            return
        self.grid()
        self._outlook.configure(text=self._control.outlook)
        if list(self._runs) != list(self.tree.get_children()):
            chosen = [row for row in self.tree.selection() if row in self._runs]
            self.tree.delete(*self.tree.get_children())
            for row in self._runs:
                self.tree.insert("", "end", iid=row)
            self.tree.selection_set(chosen)
            self.tree.configure(height=min(len(self._runs), _MOST_ROWS))
        self.tree.tag_configure("bad", foreground=self._look.palette.error)
        self._fill()
        self._refresh()

    def _fill(self) -> None:
        measure = tkfont.nametofont("TkDefaultFont", self).measure
        room = int(self.tree.column("name", "width")) - self._look.px(_CELL_PADDING)
        for row, run in self._runs.items():
            steps = f"{run.config.steps:,}" if run.config is not None else "—"
            cells = (middle_ellipsis(run.name, room, measure), steps)
            self.tree.item(row, values=cells, tags=("bad",) if run.problem else ())

    @property
    def _selected(self) -> QueuedRun | None:
        return next((self._runs[row] for row in self.tree.selection() if row in self._runs), None)

    def _refresh(self) -> None:
        for button in self._buttons.values():
            button.state(["!disabled" if self._selected is not None else "disabled"])
        problems = [run for run in self._runs.values() if run.problem]
        shown = self._selected if self._selected in problems else next(iter(problems), None)
        self._problem.configure(text=f"“{shown.name}” was passed over: {shown.problem}" if shown is not None else "")

    def _press(self, name: str) -> None:
        if self._selected is not None:
            self._acts[name](self._selected)

    def _key(self, name: str, _event: object) -> str:
        self._press(name)
        return "break"

    def _move(self, by: int, run: QueuedRun) -> None:
        self._control.queue.move(run, by)
        self.show()
        self.tree.focus(run.file.name)

    def _remove(self, run: QueuedRun) -> None:
        self._control.queue.take(run)
        self.show()

    def _point_at(self, event: tk.Event[tk.Misc]) -> None:
        run = self._runs.get(self.tree.identify_row(event.y))
        self._tip.retell(_TIP if run is None else " ".join(filter(None, (f"{run.name}.", run.problem))))
