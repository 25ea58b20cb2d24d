"""Tooltips: a sentence beside a widget, on hover and when Tab comes to it."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

_DELAY_MS = 500
_WRAP_CHARACTERS = 52
_GAP = 4  # pixels between a widget and its tip


class Tooltip:
    """Shows `text` near `widget` while the pointer rests on it; Escape or leaving takes it away."""

    def __init__(self, widget: tk.Misc, text: str, above: bool = False) -> None:
        """`above`: over the widget where there is room, for what has a picture beneath it."""
        self.text, self._above = text, above
        self._widget = widget
        self._window: tk.Toplevel | None = None
        self._pending: str | None = None
        self._beside: tuple[int, int] | None = None
        widget.bind("<Enter>", self._schedule, add="+")
        leaving = ["<Leave>", "<ButtonPress>", "<Destroy>"]
        if not isinstance(widget, (ttk.Label, ttk.Progressbar)):  # Tab stops at whatever listens to keys or focus
            widget.bind("<<TraverseIn>>", self._schedule, add="+")  # not <FocusIn>: the window moves the focus, too
            leaving += ["<FocusOut>", "<KeyPress>"]
        for event in leaving:
            widget.bind(event, self._hide, add="+")

    def retell(self, text: str, beside: tuple[int, int] | None = None) -> None:
        """Tell `text` from now on, of a part of the widget: `beside` is its (top, height) on screen; None: of all."""
        if text != self.text or beside != self._beside:
            self.text, self._beside = text, beside
            self._schedule()

    def _schedule(self, _event: object = None) -> None:
        self._hide()
        self._pending = self._widget.after(_DELAY_MS, self._show)

    def _show(self) -> None:
        self._pending = None
        if not self.text or not self._widget.winfo_viewable():
            return
        self._window = window = tk.Toplevel(self._widget)
        window.withdraw()  # until it is known where to
        window.wm_overrideredirect(True)
        unit = int(self._widget.tk.call("font", "measure", "TkDefaultFont", "0"))
        ttk.Label(window, text=self.text, style="Tip.TLabel", wraplength=unit * _WRAP_CHARACTERS).pack()
        window.update_idletasks()
        width, height = window.winfo_reqwidth(), window.winfo_reqheight()
        widget, screen = self._widget, (window.winfo_screenwidth(), window.winfo_screenheight())
        top, high = self._beside or (widget.winfo_rooty(), widget.winfo_height())
        box = (widget.winfo_rootx(), top, widget.winfo_width(), high)
        left, top = place_beside(box, (width, height), screen, self._above)
        window.wm_geometry(f"+{left}+{top}")
        window.deiconify()

    def _hide(self, _event: object = None) -> None:
        if self._pending is not None:
            self._widget.after_cancel(self._pending)
            self._pending = None
        if self._window is not None:
            self._window.destroy()
            self._window = None


def place_beside(
    box: tuple[int, int, int, int], size: tuple[int, int], screen: tuple[int, int], above: bool
) -> tuple[int, int]:
    """(left, top) of a tip of `size` at the widget in `box` (left, top, width, height), all in pixels.

    Below it, or `above` it, whichever is asked for and fits on the screen; where neither does, beside it: a tip never
    covers what it explains.
    """
    (x, y, wide, high), (width, height) = box, size
    over, under = y - height - _GAP, y + high + _GAP
    left = max(0, min(x, screen[0] - width))
    tops = [(over, over >= 0), (under, under + height <= screen[1])]
    for top, fits in tops if above else tops[::-1]:
        if fits:
            return left, top
    beside = x - width - _GAP if x - width - _GAP >= 0 else x + wide + _GAP
    return max(0, min(beside, screen[0] - width)), max(0, min(y, screen[1] - height))


def is_topmost(widget: tk.Misc, x: int, y: int) -> bool:
    """Whether `widget` is what one sees at (x, y) of the screen: neither scrolled away nor covered.

    Asked in Tcl: `winfo_containing` knows only widgets made in Python, and fails on Tk's own, such as the menu bar.
    """
    return str(widget.tk.call("winfo", "containing", x, y)) == str(widget)
