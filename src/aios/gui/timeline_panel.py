"""The decisions of the runs on show, newest first: a sentence each, and the numbers behind the chosen one."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Sequence
from functools import partial
from tkinter import ttk
from typing import Any

from aios.gui.automation import Inspector
from aios.gui.look import Look
from aios.gui.read_only_text import move_on
from aios.gui.scrolling import AutoScrollbar
from aios.run_view.theme import THEMES
from aios.run_view.timeline import Decision

MOST_ROWS = 1000
"""Decisions shown; of more, the newest."""
_ROWS_TOLD = 60  # to a script: more are never in view
_STEP, _NUMBERS = 52, 250  # tab stops at 96 dpi: of the sentence, of the numbers' values

Labelled = tuple[str, Decision]
"""(label of the run or worker, decision)."""


class TimelinePanel(ttk.Frame):
    """A list; `chosen(item)` is called when another decision is chosen in it."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, chosen: Callable[[Labelled], None]) -> None:
        super().__init__(parent, padding=look.px(12))
        self.title = ttk.Label(self, text="Decisions", style="Strong.TLabel")
        self.title.grid(row=0, column=0, sticky="w", pady=(0, look.px(4)))
        self.list = TimelineList(self, look, chosen)
        bar = AutoScrollbar(self, orient="vertical", command=self.list.yview)
        self.list.configure(yscrollcommand=bar.set)
        self.list.grid(row=1, column=0, sticky="nsew")
        bar.grid(row=1, column=1, sticky="ns")
        self.rowconfigure(1, weight=1)
        self.columnconfigure(0, weight=1)
        inspector.name("timeline", self.list)
        inspector.name("timeline-title", self.title)

    def show(self, items: Sequence[Labelled], count: int, by_run: bool = False) -> None:
        """Show `items` (in step order) of `count` decisions; with the name of run or worker if `by_run`."""
        self.title.configure(text=f"Decisions ({count:,})")
        self.list.show(list(items[-MOST_ROWS:]), by_run)


class TimelineList(tk.Text):
    """A paragraph per decision; a click or the arrow keys choose one, which shows its numbers."""

    def __init__(self, parent: tk.Misc, look: Look, chosen: Callable[[Labelled], None]) -> None:
        super().__init__(parent, wrap="word", width=1, height=7, font="TkDefaultFont", relief="flat", borderwidth=0)
        self._look, self._tell_chosen = look, chosen
        self._items: dict[str, Labelled] = {}  # by the tag of their paragraph, oldest first
        self._made = 0
        self._chosen: str | None = None
        self._by_run: bool | None = None
        self.configure(state="disabled", cursor="arrow", highlightthickness=1, spacing1=look.px(4), takefocus=True)
        self._recolour()
        self.winfo_toplevel().bind("<<LookChanged>>", lambda _: self._recolour(), add="+")
        self.bind("<Button-1>", self._clicked, add="+")
        self.bind("<Tab>", move_on)
        moves = {"<Up>": 1, "<Down>": -1, "<Home>": MOST_ROWS, "<End>": -MOST_ROWS}
        for key, by in moves.items():
            self.bind(key, partial(self._move, by))
        self.show([], by_run=False)

    def show(self, items: list[Labelled], by_run: bool) -> None:
        """Show these, oldest first; what is chosen stays so while it is among them."""
        shown = list(self._items.values())
        if items == shown and by_run == self._by_run:
            return
        chosen = self._items.get(self._chosen or "")
        gone = shown.index(items[0]) if items and items[0] in shown else len(shown)
        kept = len(shown) - gone
        if items[:kept] != shown[gone:] or by_run != self._by_run:
            gone, kept = len(shown), 0
        at_top = self.yview()[0] == 0.0
        self._by_run = by_run
        self.configure(state="normal")
        self._drop(gone)
        for item in items[kept:]:
            self._made += 1
            tag = f"row-{self._made}"
            self._items[tag] = item
            if item == chosen and self._chosen is None:
                self._chosen = tag
            self._write(tag, "1.0")
        if not items:
            self.insert("1.0", "No decision yet.", ("muted",))
        self.configure(state="disabled")
        if at_top:
            self.yview_moveto(0.0)

    def forget_choice(self) -> None:
        """Choose nothing."""
        self._choose(None)

    def select(self, item: Labelled) -> None:
        """Choose a decision and bring it into view."""
        tag = next((tag for tag, shown in self._items.items() if shown == item), None)
        if tag is not None:
            self._choose(tag)

    def tell_rows(self) -> list[dict[str, Any]]:
        """The newest rows, for `automation`: what each says, and where it begins on the screen, if it is in view."""
        told = []
        for tag in list(self._items)[: -_ROWS_TOLD - 1 : -1]:
            who, decision = self._items[tag]
            box = self.bbox(f"{tag}.first")
            at = [self.winfo_rootx() + box[0] + 4, self.winfo_rooty() + box[1] + box[3] // 2] if box else None
            values = [f"{decision.step:,}", decision.label, who, decision.sentence]
            told.append({"id": tag, "values": values, "at": at, "selected": tag == self._chosen})
        return told

    def _drop(self, count: int) -> None:
        """Take the `count` oldest away, which stand below; with none left, what says so."""
        for tag in list(self._items)[:count]:
            self._chosen = None if tag == self._chosen else self._chosen
            del self._items[tag]
            self.tag_delete(tag)
        below = f"{next(iter(self._items))}.last" if self._items else "1.0"
        self.delete(below, "end - 1 chars")

    def _write(self, tag: str, place: str) -> None:
        who, decision = self._items[tag]
        color = self._color(decision.label)
        row = (tag, "said", "chosen") if tag == self._chosen else (tag, "said")
        said = [f"{decision.step:,}\t", ("muted", *row), f"{decision.label}", (color, *row)]
        said += [f"  {who}" if self._by_run else "", ("muted", *row), f"  {decision.sentence}\n", row]
        if tag == self._chosen:
            for number, value in decision.numbers:
                said += [f"{number}\t", ("number", "muted", *row), f"{value}\n", ("number", *row)]
        self.insert(place, said[0], *said[1:])  # type: ignore[arg-type]

    def _choose(self, tag: str | None) -> None:
        before, self._chosen = self._chosen, tag
        self.configure(state="normal")
        for changed in (before, tag) if tag != before else ():
            if changed is not None:
                start = self.index(f"{changed}.first")
                self.delete(start, f"{changed}.last")
                self._write(changed, start)
        self.configure(state="disabled")
        if tag is not None:
            self.see(f"{tag}.last - 1 chars")
            self.see(f"{tag}.first")
            if tag != before:
                self._tell_chosen(self._items[tag])

    def _clicked(self, event: tk.Event[tk.Misc]) -> None:
        tags = self.tag_names(f"@{event.x},{event.y}")
        tag = next((tag for tag in tags if tag in self._items), None)
        if tag is not None:
            self._choose(tag)

    def _move(self, by: int, _event: object) -> str:
        """Choose the decision `by` places newer; from none, the newest."""
        rows = list(self._items)
        if rows:
            at = rows.index(self._chosen) + by if self._chosen is not None else len(rows) - 1
            self._choose(rows[min(max(at, 0), len(rows) - 1)])
        return "break"

    def _recolour(self) -> None:
        if not self.winfo_exists():
            return
        p, px, small = self._look.palette, self._look.px, self._look.fonts["small"]
        self._theme = THEMES[p.name]
        self.configure(
            background=p.panel, foreground=p.text, selectbackground=p.accent, selectforeground=p.on_accent,
            highlightbackground=p.panel, highlightcolor=p.accent, tabs=(px(_STEP),),
        )  # fmt: skip
        self.tag_configure("muted", foreground=p.muted, font=small)
        self.tag_configure("number", font=small, lmargin1=px(_STEP), tabs=(px(_NUMBERS),), spacing1=0)
        self.tag_configure("said", lmargin2=px(_STEP))
        self.tag_configure("chosen", background=p.hover)
        self.tag_raise("sel")
        for label in {decision.label for _, decision in self._items.values()}:
            self._color(label)

    def _color(self, label: str) -> str:
        """The tag of a decision's label, in the theme's colour."""
        tag = f"kind {label}"
        self.tag_configure(tag, foreground=self._theme.timeline_color(label), font=self._look.fonts["strong"])
        return tag
