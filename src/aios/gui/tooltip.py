"""Tooltips: a sentence beside a widget, on hover and on keyboard focus."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

_DELAY_MS = 500
_WRAP_CHARACTERS = 52


class Tooltip:
    """Shows `text` near `widget` while the pointer rests on it; Escape or leaving takes it away."""

    def __init__(self, widget: tk.Misc, text: str) -> None:
        self.text = text
        self._widget = widget
        self._window: tk.Toplevel | None = None
        self._pending: str | None = None
        widget.bind("<Enter>", self._schedule, add="+")
        leaving = ["<Leave>", "<ButtonPress>", "<Destroy>"]
        if not isinstance(widget, (ttk.Label, ttk.Progressbar)):  # Tab stops at whatever listens to keys or focus
            widget.bind("<FocusIn>", self._focused, add="+")
            leaving += ["<FocusOut>", "<KeyPress>"]
        for event in leaving:
            widget.bind(event, self._hide, add="+")

    def _schedule(self, _event: object) -> None:
        self._hide()
        self._pending = self._widget.after(_DELAY_MS, self._show)

    def _focused(self, event: object) -> None:
        if not is_topmost(self._widget, *self._widget.winfo_pointerxy()):  # else a click brought the focus
            self._schedule(event)

    def _show(self) -> None:
        self._pending = None
        if not self.text or not self._widget.winfo_viewable():
            return
        self._window = window = tk.Toplevel(self._widget)
        window.wm_overrideredirect(True)
        unit = int(self._widget.tk.call("font", "measure", "TkDefaultFont", "0"))
        ttk.Label(window, text=self.text, style="Tip.TLabel", wraplength=unit * _WRAP_CHARACTERS).pack()
        window.update_idletasks()
        width, height = window.winfo_reqwidth(), window.winfo_reqheight()
        left = min(self._widget.winfo_rootx(), self._widget.winfo_screenwidth() - width)
        below = self._widget.winfo_rooty() + self._widget.winfo_height() + 4
        above = self._widget.winfo_rooty() - height - 4
        window.wm_geometry(f"+{max(0, left)}+{below if below + height < window.winfo_screenheight() else above}")

    def _hide(self, _event: object = None) -> None:
        if self._pending is not None:
            self._widget.after_cancel(self._pending)
            self._pending = None
        if self._window is not None:
            self._window.destroy()
            self._window = None


def is_topmost(widget: tk.Misc, x: int, y: int) -> bool:
    """Whether `widget` is what one sees at (x, y) of the screen: neither scrolled away nor covered.

    Asked in Tcl: `winfo_containing` knows only widgets made in Python, and fails on Tk's own, such as the menu bar.
    """
    return str(widget.tk.call("winfo", "containing", x, y)) == str(widget)
