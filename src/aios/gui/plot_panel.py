"""The picture of the runs on show, redrawn only when something changed; its marks answer to hover and click."""

from __future__ import annotations

import time
import tkinter as tk
from collections.abc import Callable
from dataclasses import asdict, replace
from tkinter import ttk
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg
from matplotlib.figure import Figure

from aios.errors import UserError
from aios.gui.automation import Inspector
from aios.gui.look import NOMINAL_DPI, Look
from aios.gui.navigation import Navigation
from aios.gui.plot_files import ask_and_save
from aios.gui.plot_tools import PlotTools
from aios.gui.run_feed import RunFeed
from aios.gui.timeline_panel import Labelled
from aios.run_view.drawing import DrawnRun, draw_run
from aios.run_view.health_picture import HealthPicture
from aios.run_view.search_picture import SearchPicture
from aios.run_view.searches import SearchCurve, has_search, newest_search
from aios.run_view.theme import THEMES
from aios.run_view.timeline import Decision, in_brief
from aios.run_view.view import ZOOM, View

REDRAW_SECONDS = 0.2
"""Least time between two redraws."""
_REACH = 12
_FONT_SIZE = 9.0
Picture = DrawnRun | HealthPicture | SearchPicture
_EMPTY = "Set up a training on the left and press Start,\nor open a run from the list."


class PlotPanel(ttk.Frame):
    """Loss and learning rate of some feeds; `clicked(adjustment)` is called when a mark is clicked."""

    def __init__(self, parent: tk.Misc, look: Look, inspector: Inspector, clicked: Callable[[Labelled], None]) -> None:
        super().__init__(parent)
        self._look, self._clicked = look, clicked
        self._feeds: list[RunFeed] = []
        self._histories: list[Any] = []
        self._drawn: Picture | None = None
        self._dirty, self._drawn_at, self.draw_seconds = True, 0.0, 0.0
        self._selected: Decision | None = None
        self._nothing, self._redraw_waits = "", False
        self._view = View()
        self._figure = Figure(dpi=NOMINAL_DPI)  # the canvas scales it as Tk is scaled
        self._canvas = FigureCanvasTkAgg(self._figure, master=self)
        self.widget = self._canvas.get_tk_widget()
        self.widget.configure(highlightthickness=0, borderwidth=0, takefocus=True, width=1, height=1)
        self.tools = PlotTools(self, look, inspector, self.recolour, self.look_at, self.save)
        self.tools.pack(fill="x")
        self.widget.pack(fill="both", expand=True)  # from the beginning, so that nothing is drawn for another size
        self._empty = ttk.Label(
            self, text=_EMPTY, style="Muted.TLabel", justify="center", font="TkDefaultFont", anchor="center"
        )
        self._card = ttk.Label(self, style="Tip.TLabel", wraplength=look.px(330), justify="left")
        self.navigation = Navigation(self._canvas, look, self._run_drawn, self.look_at, self._clicked_at)
        self._canvas.mpl_connect("motion_notify_event", self._hovered)
        self._canvas.mpl_connect("figure_leave_event", lambda _: self._card.place_forget())
        self._canvas.mpl_connect("resize_event", lambda _: self._drawn and self._drawn.fit())
        inspector.name("plot", self.widget)
        inspector.name("plot-card", self._card)
        inspector.fact("markers", self._tell_markers)
        inspector.fact("crosshair", lambda: self.navigation.crosshair.text)
        inspector.fact("view", self._tell_view)

    def actions(self) -> dict[str, Callable[[], object]]:
        """What menus and keys do here, by name."""
        tools, way = self.tools, self.navigation
        return {
            "picture": tools.next_picture, "log": tools.toggle_log, "smoothing": tools.next_smoothing,
            "zoom-in": lambda: way.zoom(ZOOM), "zoom-out": lambda: way.zoom(1 / ZOOM), "whole": way.whole,
            "save-plot": self.save,
        }  # fmt: skip

    def show(self, feeds: list[RunFeed]) -> None:
        """Show other runs."""
        self._feeds, self._drawn, self._selected, self._dirty = feeds, None, None, True
        self._view = self._view.whole()
        self.tools.show(self._view)
        self.navigation.crosshair.hide()

    def say_of_nothing(self, text: str) -> None:
        """What stands in place of the picture while a log has no records."""
        if text != self._nothing:
            self._nothing, self._dirty = text, True

    def changed(self) -> None:
        """Redraw soon: a feed has grown, or the look has changed."""
        self._dirty = True

    def look_at(self, view: View) -> None:
        """Show another part of the runs, or show it otherwise, at once."""
        self._view = view
        self.tools.show(view)
        drawn = self._run_drawn()
        if drawn is None:
            return
        drawn.look_at(view)
        if not self._redraw_waits:  # however many turns of the wheel came before it
            self._redraw_waits = True
            self.after_idle(self._redraw_now)

    def _redraw_now(self) -> None:
        self._redraw_waits, drawn = False, self._run_drawn()
        if drawn is not None:
            drawn.redraw()
            self.navigation.crosshair.again(drawn)

    def save(self) -> None:
        """Ask for a file, and write the picture or its numbers into it."""
        drawn = self._drawn
        if drawn is None or not any(feed.history.records for feed in self._feeds):
            raise UserError("There is nothing to save yet; open a run first.")
        ask_and_save(self.winfo_toplevel(), self._feeds[0].label, self._picture_for_a_file, drawn.csv_rows)

    def _picture_for_a_file(self) -> Figure:
        figure = Figure(figsize=tuple(self._figure.get_size_inches()), dpi=NOMINAL_DPI)
        FigureCanvasAgg(figure)
        self._draw_into(figure)
        return figure

    def recolour(self) -> None:
        """Draw anew: another palette, another picture."""
        self._drawn, self._dirty = None, True
        self.navigation.crosshair.hide()

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
        self.tools.offer_search(any(has_search(history.decisions) for history in histories))
        if isinstance(self._drawn, SearchPicture) and self._drawn.curve != self._search():
            self._drawn = None
        if self._drawn is None or histories != self._histories:
            self._histories = histories
            self._drawn = self._draw_into(self._figure)
        elif not isinstance(self._drawn, SearchPicture):
            self._drawn.update()
        if not isinstance(self._drawn, SearchPicture):
            self._drawn.highlight(self._selected)
        if not any(history.records for history in histories):
            self._empty.configure(text=self._nothing if self._feeds else _EMPTY)
            self._empty.place(in_=self.widget, relwidth=1, relheight=1)
        else:
            self._empty.place_forget()
            if isinstance(self._drawn, DrawnRun):
                self._drawn.redraw()  # draws the curves only, where nothing else has changed
                self.navigation.crosshair.again(self._drawn)
            else:
                self._canvas.draw()

    def _draw_into(self, figure: Figure) -> Picture:
        palette = self._look.palette
        theme = replace(THEMES[palette.name], background=palette.panel, font_size=_FONT_SIZE)
        runs = [(feed.label, feed.history) for feed in self._feeds]
        if self.tools.picture.get() == "rate":
            return draw_run(figure, runs, theme, self._view)
        if self.tools.picture.get() == "search" and (search := self._search()) is not None:
            return SearchPicture(figure, search, theme)
        return HealthPicture(figure, runs, theme)

    def _search(self) -> SearchCurve | None:
        """The curve of the search of the run on show; of several runs that of the first that has one."""
        found = (newest_search(feed.history.decisions) for feed in self._feeds)
        return next((curve for curve in found if curve is not None), None)

    def _run_drawn(self) -> DrawnRun | None:
        return self._drawn if isinstance(self._drawn, DrawnRun) and self.widget.winfo_viewable() else None

    def select(self, decision: Decision | None) -> None:
        """Ring a decision's mark."""
        if decision != self._selected:
            self._selected, self._dirty = decision, True

    def _find(self, x: float, y: float) -> Decision | None:
        drawn = self._run_drawn()
        return drawn.decision_at(x, y, self._reach) if drawn is not None else None

    @property
    def _reach(self) -> float:
        return _REACH * self._look.scale

    def _hovered(self, event: Any) -> None:
        drawn, decision = self._run_drawn(), self._find(event.x, event.y)
        if drawn is None or decision is None:
            self._card.place_forget()
            return
        gap, height, width = self._look.px(16), self.widget.winfo_height(), self.widget.winfo_width()
        right, low = event.x > width / 2, event.y < height / 2
        if drawn.nearest(event.x, event.y, self._reach) is not None:
            self._card.configure(text=in_brief(decision))
            left, up, below = event.x + (-gap if right else gap), event.y, low
        else:  # a shaded stretch: in the other picture and at its other side, so that no curve looked at is covered
            self._card.configure(text=in_brief(decision, most=0))
            frame = drawn.loss_axes.bbox if low else drawn.lr_axes.bbox
            left, right = (frame.x0 + gap, False) if right else (frame.x1 - gap, True)
            up, below = frame.y0, True
        corner = ("s" if below else "n") + ("e" if right else "w")
        top = height - up + (-gap if below else gap)
        self._card.place(in_=self.widget, x=left, y=top, anchor=corner)  # type: ignore[arg-type]

    def _clicked_at(self, x: float, y: float) -> None:
        decision = self._find(x, y)
        owner = next((f for f in self._feeds if decision in f.history.decisions), None)
        if decision is not None and owner is not None:
            self._clicked((owner.label, decision))
            if decision.kind in ("climb", "search") and self._search() is not None:
                self.tools.show_picture("search")

    def _tell_view(self) -> dict[str, Any]:
        """What is shown, and where losses and rates are drawn on the screen."""
        drawn = self._run_drawn()
        told = asdict(self._view) | {"picture": self.tools.picture.get()}
        if drawn is None:
            return told
        left, low = self.widget.winfo_rootx(), self.widget.winfo_rooty() + self.widget.winfo_height()
        boxes = {"loss": drawn.loss_axes.bbox, "rates": drawn.lr_axes.bbox}
        frames = {name: (left + b.x0, low - b.y1, left + b.x1, low - b.y0) for name, b in boxes.items()}
        return told | {"shown_steps": list(drawn.shown_steps), "frames": frames}

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
