"""The picture of the runs on show, redrawn only when something changed; its marks answer to hover and click."""

from __future__ import annotations

import time
import tkinter as tk
from collections.abc import Callable
from dataclasses import replace
from tkinter import ttk
from typing import Any

from matplotlib.backend_bases import MouseButton, MouseEvent
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure

from aios.gui.adjustment_table import Labelled, describe
from aios.gui.automation import Inspector
from aios.gui.health_picture import HealthPicture
from aios.gui.look import NOMINAL_DPI, Look
from aios.gui.run_feed import RunFeed
from aios.gui.tooltip import Tooltip
from aios.run_view.drawing import DARK, LIGHT, DrawnRun, draw_run
from aios.run_view.events import Adjustment

REDRAW_SECONDS = 0.2
"""Least time between two redraws."""
_REACH = 12
_FONT_SIZE = 9.0
_PICTURES = (
    ("rate", "Loss and learning rate", "Loss and learning rate over the whole run, with a mark at each adjustment."),
    ("health", "Gradient norm and speed", "Gradient norm and tokens per second over the whole run."),
)
_EMPTY = "Set up a training on the left and press Start,\nor open a run from the list."


class PlotPanel(ttk.Frame):
    """Loss and learning rate of some feeds; `clicked(adjustment)` is called when a mark is clicked."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, clicked: Callable[[Labelled], None]) -> None:
        super().__init__(parent)
        self._look, self._clicked = look, clicked
        self._feeds: list[RunFeed] = []
        self._histories: list[Any] = []
        self._drawn: DrawnRun | HealthPicture | None = None
        self._dirty, self._drawn_at, self.draw_seconds = True, 0.0, 0.0
        self._selected: Adjustment | None = None
        self._nothing = ""
        self._figure = Figure(dpi=NOMINAL_DPI)  # the canvas scales it as Tk is scaled
        self._canvas = FigureCanvasTkAgg(self._figure, master=self)
        self.widget = self._canvas.get_tk_widget()
        self.widget.configure(highlightthickness=0, borderwidth=0, takefocus=False, width=1, height=1)
        self._build_choice(inspector)
        self._empty = ttk.Label(self, text=_EMPTY, style="Muted.TLabel", justify="center", font="TkDefaultFont")
        self._card = ttk.Label(self, style="Tip.TLabel", wraplength=look.px(330), justify="left")
        self._canvas.mpl_connect("motion_notify_event", self._hovered)
        self._canvas.mpl_connect("figure_leave_event", lambda _: self._card.place_forget())
        self._canvas.mpl_connect("button_press_event", self._pressed)
        self._canvas.mpl_connect("resize_event", lambda _: self._drawn and self._drawn.fit())
        inspector.name("plot", self.widget)
        inspector.name("plot-card", self._card)
        inspector.fact("markers", self._tell_markers)

    def _build_choice(self, inspector: Inspector) -> None:
        self._picture = tk.StringVar(value="rate")
        self.tools = ttk.Frame(self, padding=(self._look.px(10), self._look.px(6), self._look.px(10), 0))
        self.tools.pack(fill="x")
        self.choice = ttk.Frame(self.tools)
        self.choice.grid(row=0, column=1)
        for name, text, tip in _PICTURES:
            button = ttk.Radiobutton(
                self.choice, text=text, value=name, variable=self._picture, style="Toolbutton", command=self.recolour
            )
            button.pack(side="left")
            Tooltip(button, tip)
            inspector.name(f"picture.{name}", button)

    def show(self, feeds: list[RunFeed]) -> None:
        """Show other runs."""
        self._feeds, self._drawn, self._selected, self._dirty = feeds, None, None, True

    def say_of_nothing(self, text: str) -> None:
        """What stands in place of the picture while a log has no records."""
        if text != self._nothing:
            self._nothing, self._dirty = text, True

    def changed(self) -> None:
        """Redraw soon: a feed has grown, or the look has changed."""
        self._dirty = True

    def recolour(self) -> None:
        """Draw anew: another palette, another picture."""
        self._drawn, self._dirty = None, True

    def redraw_if_due(self) -> None:
        """Redraw if anything changed, but at most five times a second."""
        if not self._dirty or time.perf_counter() - self._drawn_at < REDRAW_SECONDS or not self.winfo_viewable():
            return
        begun = time.perf_counter()
        self._dirty = False
        self._draw()
        self._drawn_at = time.perf_counter()
        self.draw_seconds = self._drawn_at - begun

    def _draw(self) -> None:
        histories = [feed.history for feed in self._feeds]
        if self._drawn is None or histories != self._histories:
            self._histories = histories
            palette = self._look.palette
            theme = replace(DARK if palette.name == "dark" else LIGHT, background=palette.panel, font_size=_FONT_SIZE)
            draw = draw_run if self._picture.get() == "rate" else HealthPicture
            self._drawn = draw(self._figure, [(feed.label, feed.history) for feed in self._feeds], theme)
        else:
            self._drawn.update()
        self._drawn.highlight(self._selected)
        nothing = not any(history.records for history in histories)
        if nothing:
            self.widget.pack_forget()
            self.choice.grid_remove()
            self._empty.configure(text=self._nothing if self._feeds else _EMPTY)
            self._empty.place(relx=0.5, rely=0.5, anchor="center")
        else:
            self._empty.place_forget()
            self.choice.grid()
            self.widget.pack(fill="both", expand=True)
            if isinstance(self._drawn, DrawnRun):
                self._drawn.redraw()  # draws the curves only, where nothing else has changed
            else:
                self._canvas.draw()

    def select(self, adjustment: Adjustment | None) -> None:
        """Ring an adjustment's mark."""
        if adjustment != self._selected:
            self._selected, self._dirty = adjustment, True

    def _find(self, event: MouseEvent) -> Adjustment | None:
        if not isinstance(self._drawn, DrawnRun):
            return None
        return self._drawn.nearest(event.x, event.y, _REACH * self._look.scale)

    def _hovered(self, event: Any) -> None:
        adjustment = self._find(event)
        if adjustment is None:
            self._card.place_forget()
            return
        self._card.configure(text=describe(adjustment))
        gap, height, width = self._look.px(14), self.widget.winfo_height(), self.widget.winfo_width()
        right, low = event.x > width / 2, event.y < height / 2
        corner = ("s" if low else "n") + ("e" if right else "w")
        left, top = event.x + (-gap if right else gap), height - event.y + (-gap if low else gap)
        self._card.place(in_=self.widget, x=left, y=top, anchor=corner)  # type: ignore[arg-type]

    def _pressed(self, event: Any) -> None:
        adjustment = self._find(event) if event.button == MouseButton.LEFT else None
        owner = next((f for f in self._feeds if adjustment in f.history.adjustments), None)
        if adjustment is not None and owner is not None:
            self._clicked((owner.label, adjustment))

    def _tell_markers(self) -> list[dict[str, Any]]:
        """Each mark with its place on the screen."""
        if not isinstance(self._drawn, DrawnRun) or not self.widget.winfo_viewable():
            return []
        told = []
        for artist, adjustments in self._drawn.markers:
            places = self._drawn.lr_axes.transData.transform(artist.get_xydata())
            for (across, up), adjustment in zip(places, adjustments, strict=True):
                place = [
                    self.widget.winfo_rootx() + round(across),
                    self.widget.winfo_rooty() + self.widget.winfo_height() - round(up),
                ]
                told.append({"step": adjustment.step, "decision": adjustment.decision, "at": place})
        return told
