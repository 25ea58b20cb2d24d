"""The way around in the picture, by mouse and keyboard: crosshair, zoom, pan, and back to all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backend_bases import MouseButton
from matplotlib.backends.backend_tkagg import FigureCanvasTkAgg

from aios.gui.crosshair import Crosshair, ZoomBox
from aios.gui.look import Look
from aios.run_view.drawing import DrawnRun
from aios.run_view.view import LEAST_STEPS, PAN, ZOOM, View, boxed, panned, zoomed

_DRAG = 6  # pixels at 96 dpi from which on a press is a drag
_LEAST_SHARE = 0.12  # of the axes' height that a box must have to choose heights, too
_KEY_STEP = 0.01  # share of the width that an arrow moves the crosshair
_SHIFT = 1


class Navigation:
    """Listens on the canvas; `look_at(view)` is called for another view, `clicked(x, y)` for a press without a drag."""

    def __init__(
        self,
        canvas: FigureCanvasTkAgg,
        look: Look,
        drawn: Callable[[], DrawnRun | None],
        look_at: Callable[[View], None],
        clicked: Callable[[float, float], None],
    ) -> None:
        self._widget: Any = canvas.get_tk_widget()
        self._look, self._drawn, self._look_at, self._clicked = look, drawn, look_at, clicked
        self.crosshair = Crosshair(self._widget, look)
        self._box = ZoomBox(self._widget, look)
        self._press: tuple[float, float, Axes | None] | None = None  # where a drag began
        self._pans = False
        canvas.mpl_connect("button_press_event", self._pressed)
        canvas.mpl_connect("button_release_event", self._released)
        canvas.mpl_connect("motion_notify_event", self._moved)
        canvas.mpl_connect("scroll_event", self._scrolled)
        canvas.mpl_connect("figure_leave_event", lambda _: self.crosshair.hide())
        self._bind()

    def _bind(self) -> None:
        """Keys, while the picture has the focus; a turn of the wheel does not scroll what is around it."""
        widget = self._widget
        for event in ("<Button-4>", "<Button-5>", "<MouseWheel>"):
            widget.bind(event, lambda _: "break" if self._drawn() is not None else None, add="+")
        keys: dict[str, Callable[[], None]] = {
            "<plus>": lambda: self.zoom(ZOOM), "<equal>": lambda: self.zoom(ZOOM), "<KP_Add>": lambda: self.zoom(ZOOM),
            "<minus>": lambda: self.zoom(1 / ZOOM), "<KP_Subtract>": lambda: self.zoom(1 / ZOOM),
            "<Shift-Left>": lambda: self.pan(-PAN), "<Shift-Right>": lambda: self.pan(PAN),
            "<Left>": lambda: self._step(-_KEY_STEP), "<Right>": lambda: self._step(_KEY_STEP),
            "<Key-0>": self.whole, "<Home>": self.whole, "<Escape>": self.whole,
        }  # fmt: skip
        for key, act in keys.items():
            widget.bind(key, lambda _, act=act: act())
        widget.bind("<<TraverseIn>>", lambda _: self._ring(), add="+")  # by Tab: a mouse needs no ring
        widget.bind("<FocusOut>", lambda _: widget.delete("focus-ring"), add="+")

    def _ring(self) -> None:
        edge, color = self._look.px(1), self._look.palette.accent
        right, low = self._widget.winfo_width() - edge, self._widget.winfo_height() - edge
        self._widget.create_rectangle(edge, edge, right, low, outline=color, width=edge, tags="focus-ring")

    # By key

    def zoom(self, factor: float, at: float | None = None) -> None:
        """Leave `factor` times the steps in view, around step `at` (None: the crosshair's, else the middle)."""
        drawn = self._drawn()
        if drawn is None:
            return
        shown = drawn.shown_steps
        middle = self.crosshair.step if at is None else at
        middle = middle if middle is not None else sum(shown) / 2
        self._look_at(drawn.view.with_steps(zoomed(shown, middle, factor), drawn.whole_steps))

    def pan(self, share: float) -> None:
        """Move along the run by a share of what is in view."""
        drawn = self._drawn()
        if drawn is not None and drawn.view.steps is not None:
            self._look_at(drawn.view.with_steps(panned(drawn.shown_steps, share), drawn.whole_steps))

    def whole(self) -> None:
        """All of the run."""
        drawn = self._drawn()
        if drawn is not None and not drawn.view.is_whole:
            self._look_at(drawn.view.whole())

    def _step(self, share: float) -> None:
        """Move the crosshair along the run."""
        drawn = self._drawn()
        if drawn is None:
            return
        frame = drawn.loss_axes.bbox
        x, y = self.crosshair.at or ((frame.x0 + frame.x1) / 2, (frame.y0 + frame.y1) / 2)
        self.crosshair.show(drawn, min(max(x + share * frame.width, frame.x0), frame.x1), y)

    # By mouse

    def _pressed(self, event: Any) -> None:
        drawn = self._drawn()
        self._widget.focus_set()
        if drawn is None:
            return
        if event.dblclick:
            self._press = None
            self.whole()
            return
        self._press = (event.x, event.y, event.inaxes)
        shifted = bool(getattr(event.guiEvent, "state", 0) & _SHIFT)
        self._pans = event.button != MouseButton.LEFT or shifted

    def _moved(self, event: Any) -> None:
        drawn = self._drawn()
        if drawn is None:
            self.crosshair.hide()
        elif self._press is None or not self._dragged(event):
            self.crosshair.show(drawn, event.x, event.y)
        elif self._pans:
            self.crosshair.hide()
            self._pan_to(drawn, event.x)
        elif self._press[2] is not None:
            self.crosshair.hide()
            self._box.show(*self._corners(event, self._press[2]))

    def _dragged(self, event: Any) -> bool:
        assert self._press is not None
        return max(abs(event.x - self._press[0]), abs(event.y - self._press[1])) >= self._look.px(_DRAG)

    def _pan_to(self, drawn: DrawnRun, x: float) -> None:
        if self._press is None or drawn.view.steps is None:
            return
        share = (self._press[0] - x) / drawn.loss_axes.bbox.width
        self._press = (x, self._press[1], self._press[2])
        self._look_at(drawn.view.with_steps(panned(drawn.shown_steps, share), drawn.whole_steps))

    def _corners(self, event: Any, axes: Axes) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the drag, kept in the axes it began in; all their height if it is flat."""
        assert self._press is not None
        frame = axes.bbox
        x = min(max(event.x, frame.x0), frame.x1)
        y = min(max(event.y, frame.y0), frame.y1)
        left, right = sorted((self._press[0], x))
        low, high = sorted((self._press[1], y))
        if high - low < _LEAST_SHARE * frame.height:
            low, high = frame.y0, frame.y1
        return left, low, right, high

    def _released(self, event: Any) -> None:
        drawn, press = self._drawn(), self._press
        self._box.hide()
        if drawn is None or press is None:
            return
        if not self._dragged(event):
            if event.button == MouseButton.LEFT and not self._pans:
                self._clicked(event.x, event.y)
        elif not self._pans and press[2] is not None:
            self._zoom_to(drawn, press[2], self._corners(event, press[2]))
        self._press = None

    def _zoom_to(self, drawn: DrawnRun, axes: Axes, corners: tuple[float, float, float, float]) -> None:
        back = axes.transData.inverted()
        (x0, y0), (x1, y1) = back.transform(corners[:2]), back.transform(corners[2:])
        steps = boxed(float(x0), float(x1), LEAST_STEPS)
        if steps is None:
            return
        view = drawn.view.with_steps(steps, drawn.whole_steps)
        if corners[3] - corners[1] < axes.bbox.height - 1:
            heights = boxed(float(y0), float(y1), 0.0)
            view = replace(view, loss=heights) if axes is drawn.loss_axes else replace(view, rates=heights)
        self._look_at(view)

    def _scrolled(self, event: Any) -> None:
        drawn = self._drawn()
        if drawn is not None and event.inaxes is not None:
            self.zoom(ZOOM if event.button == "up" else 1 / ZOOM, float(event.xdata))
