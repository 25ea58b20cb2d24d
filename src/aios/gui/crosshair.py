"""Crosshair and zoom box: canvas items over the picture, so that the curves are not drawn anew for them."""

from __future__ import annotations

import math
import tkinter as tk
from collections.abc import Sequence

from aios.gui.look import Look
from aios.run_view.drawing import DrawnRun
from aios.run_view.pointing import told, values_at
from aios.run_view.reading import name_of

_TAG, _BOX_TAG = "crosshair", "zoom-box"
MOST_LINES = 8
"""Runs and workers whose values are told; there may be more curves."""


class Crosshair:
    """Lines through the mouse, a dot on each curve there, and a card with the values."""

    def __init__(self, canvas: tk.Canvas, look: Look) -> None:
        self._canvas, self._look = canvas, look
        self.at: tuple[float, float] | None = None
        """The picture pixel it is at, None while it is away."""
        self.step: float | None = None
        """The step it is at."""
        self.text = ""
        """What the card says; empty where there is none."""

    def show(self, drawn: DrawnRun, x: float, y: float) -> None:
        """Point at picture pixel (x, y), y counted from the bottom; outside the axes nothing is shown."""
        self.hide()
        axes = next((a for a in (drawn.loss_axes, drawn.lr_axes) if a.bbox.contains(x, y)), None)
        if axes is None:
            return
        self.at = x, y
        height, p = self._canvas.winfo_height(), self._look.palette
        low, high = drawn.lr_axes.bbox, drawn.loss_axes.bbox
        across = (axes.bbox.x0, height - y, axes.bbox.x1, height - y)
        for line in ((x, height - low.y0, x, height - low.y1), (x, height - high.y0, x, height - high.y1), across):
            self._canvas.create_line(*line, fill=p.muted, dash=(3, 3), tags=_TAG)
        self.step = drawn.step_at(x)
        lines = self._lines(drawn, self.step)
        if lines:
            self._card(lines, drawn, (x, y))

    def again(self, drawn: DrawnRun) -> None:
        """The picture has changed under it: tell the new values, where it was."""
        if self.at is not None:
            self.show(drawn, *self.at)

    def hide(self) -> None:
        """Take it away."""
        self.at, self.step, self.text = None, None, ""
        self._canvas.delete(_TAG)

    def _lines(self, drawn: DrawnRun, step: float) -> list[str]:
        """What the card says, line by line; dots on the curves on the way."""
        curves = [c for c in drawn.curves() if len(c.loss[0])]
        found = [(c, values) for c in curves if (values := values_at(c, step)) is not None]
        for curve, values in found:
            self._dot(drawn, (values.step, values.smooth), curve.color, of_loss=True)
            self._dot(drawn, (values.step, values.lr), curve.color, of_loss=False)
        if len(found) == 1:
            return [f"step {found[0][1].step:,.0f}", *told(found[0][1]).split(", ")]
        several = len({curve.run for curve in curves}) > 1
        named = [f"{name_of(c.run, c.worker, several)}: {told(values)}" for c, values in found[:MOST_LINES]]
        return [f"step {step:,.0f}", *named] if named else []

    def _dot(self, drawn: DrawnRun, point: tuple[float, float], color: str, *, of_loss: bool) -> None:
        axes = drawn.loss_axes if of_loss else drawn.lr_axes
        if not math.isfinite(point[1]) or (point[1] <= 0 and axes.get_yscale() == "log"):
            return
        x, up = axes.transData.transform(point)
        if axes.bbox.contains(x, up):
            y, r = self._canvas.winfo_height() - up, self._look.px(4)
            edge = self._look.palette.panel
            self._canvas.create_oval(x - r, y - r, x + r, y + r, fill=color, outline=edge, tags=_TAG)

    def _card(self, lines: Sequence[str], drawn: DrawnRun, at: tuple[float, float]) -> None:
        """In the upper right corner of the losses, where no falling curve is; in the left one for a mouse there."""
        self.text, p, gap, pad = "\n".join(lines), self._look.palette, self._look.px(8), self._look.px(4)
        frame = drawn.loss_axes.bbox
        top = self._canvas.winfo_height() - frame.y1 + gap
        card = self._canvas.create_text(
            frame.x1 - gap, top, anchor="ne", text=self.text, fill=p.text, font=self._look.fonts["small"], tags=_TAG
        )
        left, _, _, low = self._canvas.bbox(card)
        if at[0] > left - 2 * gap and self._canvas.winfo_height() - at[1] < low + 2 * gap:
            self._canvas.itemconfigure(card, anchor="nw")
            self._canvas.coords(card, frame.x0 + gap, top)
        left, high, right, low = self._canvas.bbox(card)
        back = self._canvas.create_rectangle(
            left - pad, high - pad, right + pad, low + pad, fill=p.panel, outline=p.border, tags=_TAG
        )
        self._canvas.tag_lower(back, card)


class ZoomBox:
    """The rectangle of a drag."""

    def __init__(self, canvas: tk.Canvas, look: Look) -> None:
        self._canvas, self._look = canvas, look

    def show(self, left: float, bottom: float, right: float, top: float) -> None:
        """From picture pixel (left, bottom) to (right, top), y counted from the bottom."""
        self.hide()
        height, color = self._canvas.winfo_height(), self._look.palette.accent
        self._canvas.create_rectangle(
            left, height - bottom, right, height - top, outline=color, width=self._look.px(1), tags=_BOX_TAG
        )

    def hide(self) -> None:
        """Take it away."""
        self._canvas.delete(_BOX_TAG)
