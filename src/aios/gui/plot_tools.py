"""The row above the picture: which picture, how it is shown, all of it again, and saving it."""

from __future__ import annotations

import tkinter as tk
from collections.abc import Callable
from dataclasses import replace
from tkinter import ttk

from aios.gui.automation import Inspector
from aios.gui.look import Look
from aios.gui.tooltip import Tooltip
from aios.run_view.view import SMOOTHINGS, View

PICTURES = (
    ("rate", "Loss", "Loss and learning rate over the whole run, with a mark at each adjustment (Ctrl+G)."),
    ("search", "Search", "Loss against learning rate, as the search for the rate has seen it (Ctrl+G)."),
    ("health", "Gradient, speed", "Gradient norm and tokens per second over the whole run (Ctrl+G)."),
)
"""(name, what stands on its button, tooltip) of what can be shown."""


class PlotTools(ttk.Frame):
    """`picked()` is called for another picture, `look_at(view)` for another way to show it."""

    def __init__(
        self,
        parent: tk.Misc,
        look: Look,
        inspector: Inspector,
        picked: Callable[[], None],
        look_at: Callable[[View], None],
        save: Callable[[], None],
    ) -> None:
        super().__init__(parent, padding=(look.px(12), look.px(8), look.px(12), 0))
        self._look, self._inspector, self._look_at = look, inspector, look_at
        self._view = View()
        self.picture = tk.StringVar(self, value="rate")
        self.choice = ttk.Frame(self)
        self.choice.grid(row=0, column=1, sticky="w")
        self._buttons: dict[str, ttk.Radiobutton] = {}
        for name, text, tip in PICTURES:
            button = ttk.Radiobutton(
                self.choice, text=text, value=name, variable=self.picture, style="Toolbutton", command=self._pick
            )
            button.pack(side="left")
            self._announce(f"picture.{name}", button, tip)
            self._buttons[name] = button
        self._buttons["search"].pack_forget()
        self._settings = ttk.Frame(self)
        self._build_settings(save)
        self.columnconfigure(2, weight=1)
        self.bind("<Configure>", lambda event: self._arrange(event.width))
        self._picked = picked

    def _build_settings(self, save: Callable[[], None]) -> None:
        gap, frame = self._look.px(8), self._settings
        self._log = tk.BooleanVar(self)
        self._smoothing = tk.StringVar(self)
        log = ttk.Checkbutton(frame, text="Log", variable=self._log, style="Toolbutton", command=self._chosen)
        ttk.Label(frame, text="Smoothing", style="Muted.TLabel").grid(row=0, column=1, padx=(gap, gap // 2))
        smoothing = ttk.Combobox(
            frame,
            textvariable=self._smoothing,
            values=list(SMOOTHINGS),
            state="readonly",
            width=7,
            style="Small.TCombobox",
            font=self._look.fonts["small"],
        )
        smoothing.bind("<<ComboboxSelected>>", lambda _: self._chosen())
        self._whole = ttk.Button(
            frame, text="Whole run", style="Small.TButton", command=lambda: self._look_at(self._view.whole())
        )
        saving = ttk.Button(frame, text="Save…", style="Small.TButton", command=save)
        for column, widget in ((0, log), (2, smoothing), (3, self._whole), (4, saving)):
            widget.grid(row=0, column=column, padx=(gap if column > 2 else 0, 0))
        self._of_losses = [log, smoothing, self._whole]
        self._announce("log", log, "The loss on a logarithmic axis, or on a linear one (Ctrl+L).")
        self._announce("smoothing", smoothing, "How much the strong line of the training loss is smoothed (Ctrl+M).")
        self._announce("whole", self._whole, "Show all of the run again (Ctrl+0, or a double click in the picture).")
        self._announce("save", saving, "Save what is shown as PNG or SVG, its numbers as CSV (Ctrl+Shift+S).")
        self.show(self._view)

    def _announce(self, name: str, widget: ttk.Widget, tip: str) -> None:
        Tooltip(widget, tip, above=True)
        self._inspector.name(name if "." in name else f"plot.{name}", widget)

    def _arrange(self, width: int) -> None:
        """The options beside the choice of pictures, or beneath it."""
        needed = sum(child.winfo_reqwidth() for child in self.winfo_children()) + 3 * self._look.px(12)
        gap = self._look.px(4)
        if width >= needed:
            self._settings.grid(row=0, column=3, columnspan=1, sticky="e", pady=0)
        else:
            self._settings.grid(row=1, column=0, columnspan=4, sticky="w", pady=(gap, 0))

    def show(self, view: View) -> None:
        """Say how the picture is shown."""
        self._view = view
        self._log.set(view.log_loss)
        self._smoothing.set(view.smoothing)
        for widget in self._of_losses:  # the other pictures have one way to be shown
            off = self.picture.get() != "rate" or (widget is self._whole and view.is_whole)
            widget.state(["disabled" if off else "!disabled"])

    def _chosen(self) -> None:
        self._look_at(replace(self._view, log_loss=self._log.get(), smoothing=self._smoothing.get(), loss=None))

    def toggle_log(self) -> None:
        """Linear or logarithmic losses."""
        self._look_at(replace(self._view, log_loss=not self._view.log_loss, loss=None))

    def next_smoothing(self) -> None:
        """The next choice of smoothing."""
        self._look_at(self._view.next_smoothing())

    def offer_search(self, there: bool) -> None:
        """Whether there is the curve of a search to be shown."""
        button = self._buttons["search"]
        if there and not button.winfo_manager():
            button.pack(side="left", before=self._buttons["health"])
        elif not there and button.winfo_manager():
            button.pack_forget()
            self.show_picture("rate")

    def show_picture(self, name: str) -> None:
        """Show one of `PICTURES`."""
        if name != self.picture.get():
            self.picture.set(name)
            self._pick()

    def _pick(self) -> None:
        self.show(self._view)
        self._picked()

    def next_picture(self) -> None:
        """The next picture that there is."""
        names = [name for name, button in self._buttons.items() if button.winfo_manager()]
        self.show_picture(names[(names.index(self.picture.get()) + 1) % len(names)])
