"""Text to read and copy from, wrapped to its room and scrolled where that is not enough."""

from __future__ import annotations

import tkinter as tk
from tkinter import ttk

from aios.gui.look import Look
from aios.gui.scrolling import AutoScrollbar


class ReadOnlyText(ttk.Frame):
    """A text with a scrollbar that comes when needed; `text` is the Tk widget."""

    def __init__(self, parent: tk.Misc, look: Look, font: str = "TkDefaultFont") -> None:
        super().__init__(parent)
        self._look, self._shown = look, ""
        self.text = tk.Text(self, height=1, width=1, wrap="word", font=font, relief="flat", borderwidth=0)
        bar = AutoScrollbar(self, orient="vertical", command=self.text.yview)
        self.text.configure(yscrollcommand=bar.set, state="disabled", highlightthickness=1, cursor="")
        self.text.grid(row=0, column=0, sticky="nsew")
        bar.grid(row=0, column=1, sticky="ns")
        self.columnconfigure(0, weight=1)
        self.rowconfigure(0, weight=1)
        self.text.bind("<Tab>", move_on)
        self.winfo_toplevel().bind("<<LookChanged>>", lambda _: self._recolour(), add="+")
        self._recolour()

    def show(self, text: str) -> bool:
        """Show `text`; whether it is another one than before."""
        if text == self._shown:
            return False
        self._shown = text
        self.text.configure(state="normal")
        self.text.replace("1.0", "end", text)
        self.text.configure(state="disabled")
        return True

    def add(self, text: str, muted: bool = False) -> None:
        """Put `text` behind what is shown; where the end was in view it stays so."""
        at_end = self.text.yview()[1] >= 1.0
        self._shown += text
        self.text.configure(state="normal")
        self.text.insert("end", text, ("muted",) if muted else ())
        self.text.configure(state="disabled")
        if at_end:
            self.text.see("end")

    def lines(self) -> int:
        """How many lines the text takes at its present width."""
        counted = self.text.tk.call(str(self.text), "count", "-update", "-displaylines", "1.0", "end")
        return max(int(counted or 1), 1)

    def _recolour(self) -> None:
        if not self.winfo_exists():
            return
        p = self._look.palette
        self.text.configure(
            background=p.panel, foreground=p.text, selectbackground=p.accent, selectforeground=p.on_accent,
            highlightbackground=p.panel, highlightcolor=p.accent,
        )  # fmt: skip
        self.text.tag_configure("muted", foreground=p.muted)


def move_on(event: tk.Event[tk.Misc]) -> str:
    """Tab goes to the next widget instead of being typed."""
    following = event.widget.tk_focusNext()
    if following is not None:
        following.focus_set()
    return "break"
