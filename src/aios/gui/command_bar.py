"""The exact command line, whole, with a button that copies it."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.look import Look
from aios.gui.read_only_text import ReadOnlyText
from aios.gui.tooltip import Tooltip

_MOST_LINES = 4
_COPIED_MS = 1500


class CommandBar(ttk.Frame):
    """Shows one command; as many lines high as it needs, up to four, then it scrolls."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector) -> None:
        super().__init__(parent, padding=look.px(8))
        self._command = ""
        self.columnconfigure(0, weight=1)
        self._label = ttk.Label(self, style="Muted.TLabel")
        self._label.grid(row=0, column=0, sticky="w")
        self._shown = ReadOnlyText(self, look, "TkFixedFont")
        self._shown.grid(row=1, column=0, sticky="ew")
        self._copy = ttk.Button(self, text="Copy", underline=0, command=self.copy)
        self._copy.grid(row=0, column=1, rowspan=2, padx=(look.px(8), 0))
        Tooltip(self._copy, "Copy the command to the clipboard (Alt+C).")
        Tooltip(self._shown.text, "What a terminal would be given to train like this.")
        self._shown.text.bind("<Configure>", lambda _: self._refit())
        self.winfo_toplevel().bind("<Alt-c>", lambda _: self._copy.invoke())
        inspector.name("copy", self._copy)
        inspector.fact("command", lambda: self._command)

    def show(self, command: str, label: str) -> None:
        """Show `command`; empty: there is none yet."""
        if str(self._label.cget("text")) != label:
            self._label.configure(text=label)
        self._command = command
        self._copy.state(["!disabled" if command else "disabled"])
        if self._shown.show(command or "(correct the settings first)"):
            self._refit()

    def copy(self) -> None:
        """Put the command on the clipboard."""
        self.clipboard_clear()
        self.clipboard_append(self._command)
        self._copy.configure(text="Copied")
        self.after(_COPIED_MS, lambda: self._copy.configure(text="Copy"))

    def _refit(self) -> None:
        lines = min(self._shown.lines(), _MOST_LINES)
        if int(str(self._shown.text.cget("height"))) != lines:
            self._shown.text.configure(height=lines)
