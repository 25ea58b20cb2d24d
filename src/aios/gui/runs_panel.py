"""The brains there are: open one, compare some, continue one."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable
from functools import partial
from tkinter import ttk
from typing import Literal

from aios.gui.automation import Inspector
from aios.gui.brains import Brain, State
from aios.gui.field_widgets import wrapped_label
from aios.gui.look import Look
from aios.gui.scrolling import AutoScrollbar
from aios.gui.tooltip import Tooltip

_COLUMNS = (("name", "Brain", 108), ("state", "State", 78), ("steps", "Steps", 108), ("loss", "Loss", 64))
_MARKS = {State.RUNNING: "good", State.FAILED: "bad", State.KILLED: "bad"}


class RunsPanel(ttk.Frame):
    """A list of brains with their state; the buttons act on its selection."""

    def __init__(
        self,
        parent: tk.Misc,
        look: Look,
        inspector: Inspector,
        show: Callable[[list[Brain]], None],
        compare: Callable[[list[Brain]], None],
        go_on: Callable[[Brain], None],
        open_log: Callable[[], None],
    ) -> None:
        super().__init__(parent, padding=look.px(12))
        self._look = look
        self._brains: dict[str, Brain] = {}
        self._callbacks = {"open": lambda: show(self.selected), "compare": lambda: compare(self.selected)}
        self._callbacks["continue"] = lambda: go_on(self.selected[0])
        self.folder = wrapped_label(self, "Muted.TLabel")
        self.folder.grid(row=0, column=0, columnspan=2, sticky="ew", pady=(0, look.px(6)))
        self.tree = ttk.Treeview(self, columns=[name for name, _, _ in _COLUMNS], show="headings", height=6)
        for name, heading, width in _COLUMNS:
            side: Literal["e", "w"] = "e" if name in ("steps", "loss") else "w"
            self.tree.heading(name, text=heading, anchor=side)
            self.tree.column(name, width=look.px(width), minwidth=look.px(width), anchor=side, stretch=name == "name")
        bar = AutoScrollbar(self, orient="vertical", command=self.tree.yview)
        self.tree.configure(yscrollcommand=bar.set)
        self.tree.grid(row=1, column=0, sticky="nsew")
        bar.grid(row=1, column=1, sticky="ns")
        self.rowconfigure(1, weight=1)
        self.columnconfigure(0, weight=1)
        self.about = wrapped_label(self, "Muted.TLabel")
        self.about.grid(row=2, column=0, columnspan=2, sticky="ew", pady=look.px(6))
        self._buttons = self._build_buttons(inspector, open_log)
        self.tree.bind("<<TreeviewSelect>>", lambda _: self._refresh())
        for event in ("<Double-1>", "<Return>"):
            self.tree.bind(event, lambda _: self._press("open"))
        Tooltip(self.tree, "Brains and their state. Enter opens one; Ctrl or Shift with a click selects several.")
        inspector.name("runs", self.tree)
        inspector.name("runs-about", self.about)
        self.recolour()
        self._refresh()

    def _build_buttons(self, inspector: Inspector, open_log: Callable[[], None]) -> dict[str, ttk.Button]:
        row = ttk.Frame(self)
        row.grid(row=3, column=0, columnspan=2, sticky="ew")
        row.columnconfigure((0, 1), weight=1, uniform="button")
        buttons = {}
        for at, (name, text, tip) in enumerate((
            ("open", "Open", "Show the selected run: its curves, its adjustments, and its controls."),
            ("compare", "Compare", "Lay the selected runs over each other; one alone is laid over the run on show."),
            ("continue", "Continue…", "Train the selected brain on from its newest checkpoint."),
        )):  # fmt: skip
            button = ttk.Button(row, text=text, command=partial(self._press, name))
            button.grid(row=at // 2, column=at % 2, sticky="ew", padx=self._look.px(3), pady=self._look.px(3))
            Tooltip(button, tip)
            inspector.name(f"runs.{name}", button)
            buttons[name] = button
        other = ttk.Button(row, text="Open log file…", command=open_log)
        other.grid(row=1, column=1, sticky="ew", padx=self._look.px(3), pady=self._look.px(3))
        Tooltip(other, "Show a training log (.jsonl) from anywhere (Ctrl+O).")
        inspector.name("runs.open-log", other)
        return buttons

    def _press(self, name: str) -> None:
        if not self._buttons[name].instate(["disabled"]):
            self._callbacks[name]()

    @property
    def selected(self) -> list[Brain]:
        """The selected brains, in the order of the list."""
        chosen = set(self.tree.selection())
        return [self._brains[row] for row in self.tree.get_children() if row in chosen]

    def show(self, folder: str, brains: list[Brain]) -> None:
        """Show the brains in `folder`; the selection stays where it was."""
        rows = {str(brain.folder): brain for brain in brains}
        self.folder.configure(text=f"Brains in {folder}" if brains else f"No brains in {folder} yet.")
        if list(rows) != list(self.tree.get_children()):
            chosen = [row for row in self.tree.selection() if row in rows]
            self.tree.delete(*self.tree.get_children())
            for row in rows:
                self.tree.insert("", "end", iid=row)
            self.tree.selection_set(chosen)
        for row, brain in rows.items():
            if self._brains.get(row) != brain or not self.tree.item(row, "values"):
                loss = f"{brain.loss:.3f}" if brain.loss is not None else "—"
                cells = (brain.name, brain.state.value, brain.progress, loss)
                self.tree.item(row, values=cells, tags=(_MARKS.get(brain.state, "plain"),))
        self._brains = rows
        self._refresh()

    def recolour(self) -> None:
        """Follow a change of the palette."""
        palette = self._look.palette
        for tag, colour in (("good", palette.good), ("bad", palette.error), ("plain", palette.text)):
            self.tree.tag_configure(tag, foreground=colour)

    def _refresh(self) -> None:
        chosen = self.selected
        self._buttons["open"].state(["!disabled" if len(chosen) == 1 else "disabled"])
        self._buttons["compare"].state(["!disabled" if chosen else "disabled"])
        can_continue = len(chosen) == 1 and chosen[0].can_continue
        self._buttons["continue"].state(["!disabled" if can_continue else "disabled"])
        self.about.configure(text=_about(chosen))


def _about(chosen: list[Brain]) -> str:
    if not chosen:
        return "Select a brain to open, compare or continue it."
    if len(chosen) > 1:
        return f"{len(chosen)} brains selected."
    return f"{chosen[0].name}: {chosen[0].state.value}. {chosen[0].sentence}".strip()
