"""A frame that scrolls when it is taller than the room it has; the keyboard focus is always brought into view."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

from aios.gui.look import Look


class AutoScrollbar(ttk.Scrollbar):
    """A scrollbar in a grid that is there only while there is something to scroll."""

    def set(self, first: float | str, last: float | str) -> None:
        """Show which part, from 0 to 1, is in view."""
        if float(first) <= 0.0 and float(last) >= 1.0:
            self.grid_remove()
        else:
            self.grid()
        super().set(first, last)


def put_with_scrollbars(tree: ttk.Treeview, row: int) -> None:
    """Put a list into its parent's grid at `row`, with all the room there is, a scrollbar beside it and one beneath."""
    parent = tree.master
    down = AutoScrollbar(parent, orient="vertical", command=tree.yview)
    across = AutoScrollbar(parent, orient="horizontal", command=tree.xview)
    tree.configure(yscrollcommand=down.set, xscrollcommand=across.set)
    tree.grid(row=row, column=0, sticky="nsew")
    down.grid(row=row, column=1, sticky="ns")
    across.grid(row=row + 1, column=0, sticky="ew")
    parent.rowconfigure(row, weight=1)
    parent.columnconfigure(0, weight=1)


class ScrollFrame(ttk.Frame):
    """Put widgets into `inside`; its width follows this frame's, its height is its own.

    With `least` (pixels), its height is this frame's too, but never less than that. `style` is the ttk style of the
    inside.
    """

    def __init__(self, parent: tk.Misc, look: Look, least: int | None = None, style: str = "TFrame") -> None:
        super().__init__(parent)
        self._look, self._least, self._style = look, least, style
        self._canvas = tk.Canvas(self, highlightthickness=0, borderwidth=0, takefocus=False)
        self._bar = ttk.Scrollbar(self, orient="vertical", command=self._canvas.yview)
        self._canvas.configure(yscrollcommand=self._bar.set)
        self.inside = ttk.Frame(self._canvas, style=style)
        self._item = self._canvas.create_window(0, 0, window=self.inside, anchor="nw")
        self._canvas.grid(row=0, column=0, sticky="nsew")
        self._bar.grid(row=0, column=1, sticky="ns")
        self.rowconfigure(0, weight=1)
        self.columnconfigure(0, weight=1)
        self.inside.bind("<Configure>", self._refit)
        self._canvas.bind("<Configure>", self._refit)
        self.winfo_toplevel().bind("<<LookChanged>>", self._recolour, add="+")
        self.winfo_toplevel().bind("<FocusIn>", self._reveal_focus, add="+")
        for event in ("<MouseWheel>", "<Button-4>", "<Button-5>"):
            self.bind_all(event, self._wheel, add="+")
        self._recolour()

    def _recolour(self, _event: object = None) -> None:
        self._canvas.configure(background=ttk.Style(self).lookup(self._style, "background"))

    def _refit(self, _event: object = None) -> None:
        needed, room = self.inside.winfo_reqheight(), self._canvas.winfo_height()
        self._canvas.itemconfigure(self._item, width=self._canvas.winfo_width())
        if self._least is not None:
            needed = self._least
            self._canvas.itemconfigure(self._item, height=max(needed, room))
        self._canvas.configure(scrollregion=(0, 0, self._canvas.winfo_width(), max(needed, room)))
        if needed > room:
            self._bar.grid()
        else:
            self._bar.grid_remove()

    def _holds(self, widget: object) -> bool:
        return isinstance(widget, tk.Misc) and str(widget).startswith(str(self.inside))

    def _wheel(self, event: tk.Event[tk.Misc]) -> None:
        if not self._holds(event.widget) and event.widget is not self._canvas:
            return
        up = event.num == 4 or event.delta > 0
        self._canvas.yview_scroll(-2 if up else 2, "units")

    def _reveal_focus(self, event: tk.Event[tk.Misc]) -> None:
        if self._holds(event.widget):
            self.reveal(event.widget)

    def need(self, least: int) -> None:
        """Scroll from now on when there are fewer than `least` pixels of height."""
        self._least = least
        self._refit()

    def to_top(self) -> None:
        """Scroll to the beginning."""
        self._canvas.yview_moveto(0.0)

    def reveal(self, widget: tk.Misc) -> None:
        """Scroll so that `widget` can be seen."""
        total = self.inside.winfo_height()
        top = widget.winfo_rooty() - self.inside.winfo_rooty()
        bottom, margin = top + widget.winfo_height(), self._look.px(24)
        seen_top, seen = self._canvas.canvasy(0), self._canvas.winfo_height()
        if top - margin < seen_top:
            self._canvas.yview_moveto(max(0, top - margin) / total)
        elif bottom + margin > seen_top + seen:
            self._canvas.yview_moveto((bottom + margin - seen) / total)
