"""The menu bar and the keys: everything in the window can be done without a mouse."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable, Mapping
from tkinter import ttk

from aios.gui.look import Look

KEYS = (
    ("Ctrl+Enter, Alt+S", "Start training, or queue it"),
    ("Ctrl+P, Alt+P", "Pause or resume"),
    ("Alt+T", "Stop and save"),
    ("Alt+N", "Finish now"),
    ("Alt+K", "Kill, after confirmation"),
    ("Ctrl+1, Ctrl+2, Ctrl+3", "The form, the list of runs, the run on show"),
    ("Ctrl+B", "Fold the form away beside the run, or bring it back"),
    ("Ctrl+4", "Try a brain: have it continue a text"),
    ("Ctrl+G, Ctrl+L, Ctrl+M", "Next picture, linear or log loss, next smoothing"),
    ("Ctrl++, Ctrl+-, Ctrl+0", "Zoom in, zoom out, the whole run"),
    ("Left, Right in the picture", "Move the crosshair; with Shift along the run"),
    ("Ctrl+Shift+S", "Save picture or numbers"),
    ("Ctrl+O", "Open a training log"),
    ("Left, Right, R", "In the list of runs: sort by another column, turn the order round"),
    ("F2, N, Delete", "In the list of runs: rename, notes, delete"),
    ("Alt+Up, Alt+Down", "In the queue: start earlier, later"),
    ("Ctrl+I, Ctrl+S", "Import, export settings"),
    ("F9", "Light or dark"),
    ("Tab, Space, arrows", "Move, press, choose"),
    ("F10, Alt+F, Alt+V, Alt+H", "Menus"),
    ("Ctrl+Q", "Close the window"),
)
"""What `Help` tells."""

_MENUS: tuple[tuple[str, tuple[tuple[str, str, str] | None, ...]], ...] = (
    (
        "File",
        (
            ("open-log", "Open log…", "Ctrl+O"),
            None,
            ("import", "Import settings…", "Ctrl+I"),
            ("export", "Export settings…", "Ctrl+S"),
            ("save-plot", "Save picture or numbers…", "Ctrl+Shift+S"),
            ("defaults", "Back to the defaults", ""),
            None,
            ("close", "Close", "Ctrl+Q"),
        ),
    ),
    (
        "View",
        (
            ("theme", "Light / dark", "F9"),
            ("form", "Training form", "Ctrl+1"),
            ("runs", "List of runs", "Ctrl+2"),
            ("run", "Run on show", "Ctrl+3"),
            ("fold", "Show or hide the form", "Ctrl+B"),
            ("try", "Try it", "Ctrl+4"),
            None,
            ("picture", "Next picture", "Ctrl+G"),
            ("log", "Linear / logarithmic loss", "Ctrl+L"),
            ("smoothing", "Next smoothing", "Ctrl+M"),
            ("zoom-in", "Zoom in", "Ctrl++"),
            ("zoom-out", "Zoom out", "Ctrl+-"),
            ("whole", "Whole run", "Ctrl+0"),
        ),
    ),
    ("Help", (("keys", "Keys", "F1"),)),
)
_BINDINGS = {
    "<Control-o>": "open-log",
    "<Control-i>": "import",
    "<Control-s>": "export",
    "<Control-q>": "close",
    "<F9>": "theme",
    "<Control-Key-1>": "form",
    "<Control-Key-2>": "runs",
    "<Control-Key-3>": "run",
    "<Control-b>": "fold",
    "<Control-Key-4>": "try",
    "<Control-g>": "picture",
    "<Control-l>": "log",
    "<Control-m>": "smoothing",
    "<Control-plus>": "zoom-in",
    "<Control-equal>": "zoom-in",
    "<Control-minus>": "zoom-out",
    "<Control-Key-0>": "whole",
    "<Control-S>": "save-plot",
    "<F1>": "keys",
}


def build_menus(root: tk.Tk, look: Look, actions: Mapping[str, Callable[[], object]]) -> None:
    """Put a menu bar on the window whose entries call `actions`, and bind their keys."""
    bar = tk.Menu(root, tearoff=False)
    menus = [bar]
    spacer = look.blank(4, 24)  # else only a raised border could keep entries apart
    for title, entries in _MENUS:
        menu = tk.Menu(bar, tearoff=False)
        menus.append(menu)
        for entry in entries:
            if entry is None:
                menu.add_separator()
            else:
                name, text, key = entry
                menu.add_command(
                    label=text, accelerator=key, command=actions[name], underline=0, image=spacer, compound="left"
                )
        bar.add_cascade(label=title, menu=menu, underline=0, image=spacer, compound="left")
    root.configure(menu=bar)

    def recolour(_event: object = None) -> None:
        p = look.palette
        for menu in menus:
            menu.configure(
                background=p.panel if menu is bar else p.hover, foreground=p.text, activebackground=p.accent,
                activeforeground=p.on_accent, relief="flat", borderwidth=0, disabledforeground=p.disabled,
                activeborderwidth=0,
            )  # fmt: skip

    root.bind("<<LookChanged>>", recolour, add="+")
    recolour()
    for key, name in _BINDINGS.items():
        root.bind(key, lambda _, act=actions[name]: _then_break(act))  # type: ignore[misc]
    for widget in ("TButton", "TCheckbutton"):
        root.bind_class(widget, "<Return>", lambda event: _invoke(event.widget))
    for widget in ("TEntry", "TCombobox"):
        root.bind_class(widget, "<Control-a>", lambda event: _select_all(event.widget))


def bind_buttons(root: tk.Tk, keys: Mapping[str, ttk.Button]) -> None:
    """Let keys press buttons, where those are on."""
    for key, button in keys.items():
        root.bind(key, lambda _, b=button: _then_break(b.invoke))  # type: ignore[misc]


def _invoke(widget: object) -> None:
    if isinstance(widget, (ttk.Button, ttk.Checkbutton)):
        widget.invoke()


def _then_break(act: Callable[[], object]) -> str:
    act()
    return "break"


def _select_all(widget: object) -> str:
    if isinstance(widget, ttk.Entry):
        widget.selection_range(0, "end")
        widget.icursor("end")
    return "break"
