"""Where everything in the window is, as a file: for screen readers' scripts, macros and the tests.

With `AIOS_GUI_INSPECT=FILE` the window writes FILE anew, whole or not at all, whenever something changed: the named
widgets with their screen rectangle, text and state. It is an aid that only tells; nothing can be done through it.
"""

from __future__ import annotations

import json
import os
import tkinter as tk
from collections.abc import Callable
from pathlib import Path
from tkinter import ttk
from typing import Any

from aios.files import replace_file
from aios.gui.tooltip import is_topmost

INSPECT_VARIABLE = "AIOS_GUI_INSPECT"


class Inspector:
    """Keeps the names of the widgets; writes the file if the environment asks for it."""

    def __init__(self) -> None:
        target = os.environ.get(INSPECT_VARIABLE)
        self._target = Path(target) if target else None
        self._widgets: dict[str, tk.Misc] = {}
        self._facts: dict[str, Callable[[], Any]] = {}
        self._written = ""

    def name(self, name: str, widget: tk.Misc) -> None:
        """Have `widget` reported as `name`; a later one of the same name replaces it."""
        self._widgets[name] = widget

    def fact(self, name: str, tell: Callable[[], Any]) -> None:
        """Have what `tell()` returns (plain JSON values) reported under `name`."""
        self._facts[name] = tell

    def watch(self, window: tk.Misc) -> None:
        """Report every text in `window` without the room it needs, the number of windows, and where the focus is."""
        self.fact("cut_off", lambda: sorted(cut_off(window)))
        self.fact("focus", lambda: str(window.tk.call("focus")))  # Tk's path of it: not all have a name
        self.fact("windows", lambda: open_windows(window))

    def write(self) -> None:
        """Write the file, if one was asked for and anything changed."""
        if self._target is None:
            return
        gone = [name for name, widget in self._widgets.items() if not widget.winfo_exists()]
        for name in gone:
            del self._widgets[name]
        report = {name: tell() for name, tell in self._facts.items()}
        report["widgets"] = {name: describe(widget) for name, widget in self._widgets.items()}
        text = json.dumps(report, indent=1)
        if text != self._written:
            self._written = text
            replace_file(self._target, lambda file: file.write(text.encode()), durable=False)


def open_windows(root: tk.Misc) -> int:
    """How many windows are on the screen: `root` and what it has opened, tooltips aside."""
    children = [str(path) for path in root.tk.splitlist(root.tk.call("winfo", "children", "."))]
    others = [path for path in children if str(root.tk.call("winfo", "toplevel", path)) == path]
    shown = [path for path in others if root.tk.call("winfo", "viewable", path)]
    return 1 + sum(str(root.tk.call("winfo", "class", path)) != "Menu" for path in shown)


def cut_off(widget: tk.Misc) -> list[str]:
    """The texts on screen, in `widget` and below, whose labels or buttons are smaller than they ask to be."""
    # Not `winfo_children`: it knows only widgets made in Python, and fails on those that Tk makes, such as drop-downs.
    texts = [text for child in widget.children.values() for text in cut_off(child)]
    if isinstance(widget, (ttk.Label, ttk.Button, ttk.Checkbutton, ttk.Radiobutton)) and widget.winfo_viewable():
        small = widget.winfo_width() < widget.winfo_reqwidth() or widget.winfo_height() < widget.winfo_reqheight()
        texts += [str(widget.cget("text"))] if small else []
    return texts


def describe(widget: tk.Misc) -> dict[str, Any]:
    """Screen rectangle in pixels, whether it is on screen, text, and ttk state of one widget."""
    middle = (widget.winfo_rootx() + widget.winfo_width() // 2, widget.winfo_rooty() + widget.winfo_height() // 2)
    told: dict[str, Any] = {
        "kind": widget.winfo_class(),
        "x": widget.winfo_rootx(),
        "y": widget.winfo_rooty(),
        "width": widget.winfo_width(),
        "height": widget.winfo_height(),
        "needs_width": widget.winfo_reqwidth(),
        "visible": bool(widget.winfo_viewable()),
        "reachable": is_topmost(widget, *middle),  # at its middle: neither scrolled away nor covered
        "focus": str(widget.tk.call("focus")) == str(widget),
    }
    if isinstance(widget, ttk.Widget):
        told["state"] = [str(state) for state in widget.state()]
    if isinstance(widget, tk.Text):
        told["text"] = widget.get("1.0", "end-1c")
        told["in_view"] = widget.yview()  # from where to where, as parts of the text
    if isinstance(widget, ttk.Entry):  # comboboxes too
        told["text"] = widget.get()
    elif isinstance(widget, (ttk.Label, ttk.Button, ttk.Checkbutton)):
        told["text"] = str(widget.cget("text"))
    if isinstance(widget, ttk.Treeview):
        told["rows"] = [_row(widget, item) for item in widget.get_children()]
    elif (tell_rows := getattr(widget, "tell_rows", None)) is not None:  # a list of another kind
        told["rows"] = tell_rows()
    return told


def _row(tree: ttk.Treeview, item: str) -> dict[str, Any]:
    """A list row: what it says, and the middle of it on the screen where it can be seen."""
    box = tree.bbox(item)
    place = None
    if isinstance(box, tuple) and tree.winfo_viewable():
        place = [tree.winfo_rootx() + box[0] + box[2] // 2, tree.winfo_rooty() + box[1] + box[3] // 2]
    return {
        "id": item,
        "values": [str(value) for value in tree.item(item, "values")],
        "at": place,
        "selected": item in tree.selection(),
    }
