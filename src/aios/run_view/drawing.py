"""The picture of one run or several: loss above, learning rate below, a mark at each adjustment.

One code for the command line and the window; the object interface of matplotlib only, so any canvas will do.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aios.errors import UserError
from aios.run_view import scales
from aios.run_view.axes import margins, style_axes
from aios.run_view.curves import EVALUATION_MARKS, LINE_STYLES, Curve, Look, heights
from aios.run_view.events import Adjustment
from aios.run_view.history import RunHistory
from aios.run_view.legends import Entries, columns_that_fit, loss_entries, lr_entries, put_legend, rows_of
from aios.run_view.marks import AdjustmentMarks, Markers
from aios.run_view.pointing import DrawnCurves, csv_rows
from aios.run_view.searches import bounds_of
from aios.run_view.theme import DARK, LIGHT, Theme
from aios.run_view.timeline import Decision, told_over
from aios.run_view.view import Limits, View

__all__ = ["DARK", "LIGHT", "DrawnRun", "Markers", "Theme", "blank_picture", "cannot_write", "draw_run", "save_picture"]


class PictureSize(NamedTuple):
    """Of a picture file."""

    width: float
    """Inches."""
    height: float
    """Inches."""
    dpi: float
    """Pixels to the inch."""


RUN_SIZE = PictureSize(12.8, 8.0, 100)
REPLAY_SIZE = PictureSize(11.0, 6.5, 110)
SEARCH_SIZE = PictureSize(8.0, 4.5, 110)
"""Of what `plot`, `replay` and `lr-find` draw."""
RATE_SHARE = 0.35
"""Of the height that both pictures have, the part of the learning rate."""
_NAMES = (("loss (nats per token)", "loss"), ("learning rate", "rate"))
"""Of the axes, whole and where there is not the height for that."""


def blank_picture(size: PictureSize) -> Figure:
    """A figure to draw into that needs no display."""
    figure = Figure(figsize=(size.width, size.height), dpi=size.dpi)
    FigureCanvasAgg(figure)
    return figure


def save_picture(figure: Figure, path: Path, dpi: float | Literal["figure"] = "figure") -> None:
    """Write `figure` into a file whose ending says the format.

    Raises:
        UserError: when it cannot be written there.
    """
    try:
        figure.savefig(path, dpi=dpi)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> UserError:
    """What to tell who named `path` for a picture or a table."""
    return UserError(f"{path} cannot be written ({error.strerror}); choose another place.")


def draw_run(
    figure: Figure, histories: Sequence[tuple[str, RunHistory]], theme: Theme = LIGHT, view: View | None = None
) -> DrawnRun:
    """Draw the runs, each a (label, history), into `figure`, which is cleared first; `view` None: all of them.

    For a picture file, save the figure. For a window, call `update()` and `redraw()` of what is returned each time
    the histories have grown; a history that was replaced by another one needs a new `draw_run`.
    """
    return DrawnRun(figure, histories, theme, view or View())


class DrawnRun:
    """A drawn picture that can follow its histories.

    `redraw` keeps the frame (axes, ticks, legends, phases) as a bitmap and draws only the curves over it, until
    something about the frame changes: that is what keeps it cheap.
    """

    def __init__(self, figure: Figure, histories: Sequence[tuple[str, RunHistory]], theme: Theme, view: View) -> None:
        self.figure = figure
        self.theme = theme
        self.loss_axes: Axes
        self.lr_axes: Axes
        self.view = view
        """What part of the runs is shown, and how."""
        self._runs = list(histories)
        self._live = False
        self._fitted = (0.0, 0.0)  # inches of the figure that margins and legends were made for
        self._limits: tuple[Limits, ...] = ()  # those on the axes
        self._leaped: tuple[Limits, ...] = ()  # those of all there is
        self._background: Any = None  # the frame's bitmap; None: has to be drawn
        self._build()

    @property
    def markers(self) -> list[Markers]:
        """The marks in the lower picture, for hover and click."""
        return self._marks.groups

    def update(self) -> None:
        """Take what the histories hold now; `redraw`, or a draw of the canvas, shows it."""
        if self._parts() != self._built_for:
            self._build()
            return
        self._refill()
        self._set_limits()

    def look_at(self, view: View) -> None:
        """Show another part of the runs, or show it otherwise; `redraw`, or a draw of the canvas, shows it."""
        rescaled, self.view = view.log_loss != self.view.log_loss, view
        if rescaled:
            self._scale_loss()
        self._limits, self._background = (), None
        self._refill()
        self._set_limits()

    @property
    def whole_steps(self) -> Limits:
        """The steps of all that can be looked at."""
        planned = [h.total_steps for _, h in self._runs if h.state in ("waiting", "running")]
        reach = max([1, *(history.step for _, history in self._runs)])
        return scales.step_limits(reach, max((steps for steps in planned if steps is not None), default=None))

    @property
    def shown_steps(self) -> Limits:
        """The steps on the axis."""
        low, high = self.loss_axes.get_xlim()
        return float(low), float(high)

    def curves(self) -> list[DrawnCurves]:
        """What is drawn, as numbers."""
        labels = {id(history): label for label, history in self._runs}
        return [curve.drawn(labels[id(curve.history)]) for curve in self._curves]

    def step_at(self, x: float) -> float:
        """The step at canvas pixel `x`."""
        return float(self.loss_axes.transData.inverted().transform((x, 0.0))[0])

    def shows(self, x: float, y: float) -> bool:
        """Whether canvas pixel (x, y) lies in the losses or in the learning rates."""
        return bool(self.loss_axes.bbox.contains(x, y) or self.lr_axes.bbox.contains(x, y))

    def csv_rows(self) -> Iterator[list[str]]:
        """What is drawn, as rows of a table."""
        return csv_rows(self.curves())

    def redraw(self) -> None:
        """Bring the canvas up to date; on a window's canvas this shows it."""
        canvas: Any = self.figure.canvas
        if not self._live:
            self._go_live()
        if self._background is None or not self._live:
            canvas.draw()
            return
        canvas.restore_region(self._background)
        self._draw_moving()
        canvas.blit(self.figure.bbox)

    def nearest(self, x: float, y: float, radius: float = 10.0) -> Adjustment | None:
        """The adjustment whose mark is nearest to canvas pixel (x, y), None when none is within `radius` pixels.

        Pixels as in matplotlib's mouse events: y counts from the bottom.
        """
        return self._marks.nearest(x, y, radius)

    def decision_at(self, x: float, y: float, radius: float = 10.0) -> Decision | None:
        """The decision whose mark is near canvas pixel (x, y), else the one behind the shaded stretch it lies in."""
        mark = self.nearest(x, y, radius)
        if mark is not None:
            return next((d for _, history in self._runs for d in history.decisions if d.adjustment is mark), None)
        if not self.shows(x, y) or len(self._runs) != 1:
            return None
        history = self._runs[0][1]
        return told_over(history.phases, history.decisions, self.step_at(x))

    def highlight(self, decision: Decision | None) -> None:
        """Ring where the decision stands on the learning rate (None: take the ring away); `redraw` shows it."""
        self._marks.highlight(decision)

    def fit(self) -> None:
        """Give margins and legends their size in inches, whatever the figure's. A live picture does so by itself."""
        self._background = None
        width, height = (float(inches) for inches in self.figure.get_size_inches())
        line = self.theme.font_size / 72
        left, right, bottom, name = margins(width, self.theme.font_size)
        columns = [columns_that_fit(entries, (right - left) * width, self.theme) for entries in self._entries]
        above, between = (
            0.12 + 1.75 * line * max(1, rows_of(entries, n))
            for entries, n in zip(self._entries, columns, strict=True)
        )  # fmt: skip
        room = max(height - above - between - bottom, 0.2 * height)
        upper = bottom + RATE_SHARE * room + between
        self.lr_axes.set_position((left, bottom / height, right - left, RATE_SHARE * room / height))
        self.loss_axes.set_position((left, upper / height, right - left, max(height - above - upper, 0.1) / height))
        for axes, entries, n in zip((self.loss_axes, self.lr_axes), self._entries, columns, strict=True):
            axes.yaxis.set_label_coords(name, 0.5)
            whole, short = _NAMES[axes is self.lr_axes]
            tall = axes.get_position().height * height
            axes.set_ylabel(whole if 0.6 * line * len(whole) < tall else short)
            put_legend(axes, entries, n, self.theme)
        self._fitted = (width, height)

    def _parts(self) -> object:
        """What decides which artists there are."""
        alone = len(self._runs) == 1
        return [
            (label, _shown_ranks(h), h.keys, h.phases if alone else [], sorted({a.decision for a in h.adjustments}),
             bounds_of(h.decisions) if alone else None)
            for label, h in self._runs
        ]  # fmt: skip

    def _build(self) -> None:
        self._built_for = self._parts()
        self._fitted = (0.0, 0.0)
        self.figure.clear()
        self.figure.set_facecolor(self.theme.background)
        self.loss_axes = self.figure.add_subplot(2, 1, 1)
        self.lr_axes = self.figure.add_subplot(2, 1, 2, sharex=self.loss_axes)
        for axes in (self.loss_axes, self.lr_axes):
            style_axes(axes, self.theme)
            axes.xaxis.set_major_formatter(scales.step_name)
        self.loss_axes.tick_params(labelbottom=False)
        self.lr_axes.set_xlabel("optimizer step")
        self.lr_axes.set_yscale("log")
        self._scale_loss()
        self._draw_reference()
        axes_pair = (self.loss_axes, self.lr_axes)
        self._curves = [
            Curve(history, rank, self._look(at, history, rank), axes_pair, self.theme)
            for at, (_, history) in enumerate(self._runs)
            for rank in _shown_ranks(history)
        ]
        self._marks = AdjustmentMarks([h for _, h in self._runs], self.loss_axes, self.lr_axes, self.theme)
        self._entries: tuple[Entries, Entries] = ([], [])
        self._limits = ()
        for artist in self._moving():
            artist.set_animated(self._live)
        self._refill()
        self._set_limits()

    def _scale_loss(self) -> None:
        _style_scale(self.loss_axes, self.view.log_loss)

    def _draw_reference(self) -> None:
        """What stays put: phases and the unigram entropy, of a single run only."""
        self._phase_names: list[str] = []
        self._entropy: Line2D | None = None
        self._bounds: tuple[float, float] | None = None
        if len(self._runs) != 1:
            return
        history = self._runs[0][1]
        for phase in history.phases:
            for axes in (self.loss_axes, self.lr_axes):
                axes.axvspan(phase.start, phase.end, color=self.theme.phases[phase.kind], linewidth=0, zorder=0)
            if phase.kind not in self._phase_names:
                self._phase_names.append(phase.kind)
        self._bounds = bounds_of(history.decisions)
        for rate in self._bounds or ():
            self.lr_axes.axhline(rate, color=self.theme.muted, linestyle=(0, (4, 3)), linewidth=1.0, zorder=1)
        if history.unigram_entropy is not None and math.isfinite(history.unigram_entropy):
            self._entropy = self.loss_axes.axhline(
                history.unigram_entropy, color=self.theme.muted, linestyle=(0, (1, 2)), linewidth=1.2, zorder=1
            )

    def _look(self, at: int, history: RunHistory, rank: int | None) -> Look:
        """One colour per worker of a single run, else one per run and a line style per worker."""
        colors, alone = self.theme.curves, len(self._runs) == 1
        if rank not in history.ranks:
            return Look(colors[at % len(colors)], "-", evaluation=self.theme.text, evaluation_style="-", faint=0.0)
        worker = history.ranks.index(rank)
        color = colors[(worker if alone else at) % len(colors)]
        style = LINE_STYLES[(worker // len(colors) if alone else worker) % len(LINE_STYLES)]
        if alone and len(history.ranks) == 1:
            return Look(color, style, evaluation=self.theme.text, evaluation_style="-", faint=0.34)
        marker = EVALUATION_MARKS[at % len(EVALUATION_MARKS)] if not alone else "o"
        return Look(color, style, evaluation=color, evaluation_style="--", faint=0.18, marker=marker)

    def _refill(self) -> None:
        for curve in self._curves:
            curve.refill(self.view)
        self._marks.refill()
        entries = (
            loss_entries(self._runs, self._curves, self._entropy, self.theme),
            lr_entries(self._runs, self._phase_names, self._bounds, self.theme),
        )
        if _names(entries) != _names(self._entries) or tuple(self.figure.get_size_inches()) != self._fitted:
            self._entries = entries
            self.fit()

    def _set_limits(self) -> None:
        """Limits move in leaps, so that the frame need not be drawn anew for each step."""
        needed = (self.whole_steps, self._loss_limits(), self._rate_limits())
        planned = any(h.total_steps is not None and h.state == "running" for _, h in self._runs)
        limits = scales.leap(self._leaped, needed, planned) if self._limits else needed
        self._leaped, view = limits, self.view
        loss = (10 ** limits[1][0], 10 ** limits[1][1]) if view.log_loss else limits[1]
        shown = (view.steps or limits[0], view.loss or loss, view.rates or limits[2])
        if shown == self._limits:
            return
        self._limits, self._background = shown, None
        self.loss_axes.set_xlim(*shown[0])
        self.loss_axes.set_ylim(*shown[1])
        if view.log_loss:
            ticks = scales.log_loss_ticks(*shown[1])
            self.loss_axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
            self.loss_axes.set_yticks([], minor=True)
        self.lr_axes.set_ylim(*shown[2])
        self.lr_axes.set_yticks(*scales.rate_ticks(*shown[2]))
        self.lr_axes.set_yticks([], minor=True)

    def _loss_limits(self) -> Limits:
        """Of the losses in view; with a log axis of their logarithms to base 10."""
        firm = [heights(line) for curve in self._curves for line in (curve.smooth, curve.evaluation)]
        raw = [values for curve in self._curves for values in curve.extremes(self.view)]
        entropy = float(heights(self._entropy)[0]) if self._entropy is not None else None
        if not self.view.log_loss:
            return scales.loss_limits(raw, firm, entropy)
        raw, firm = ([scales.log10_of(values) for values in part] for part in (raw, firm))
        return scales.loss_limits(raw, firm, math.log10(entropy) if entropy is not None and entropy > 0 else None)

    def _rate_limits(self) -> Limits:
        rates = [heights(line) for curve in self._curves for line in curve.rates.values()]
        marked = [heights(group.artist) for group in self.markers] if self.view.steps is None else []
        if self._bounds is not None and self.view.steps is None:
            marked.append(np.array(self._bounds))
        return scales.rate_limits(rates, marked)

    def _moving(self) -> Iterator[Artist]:
        """Artists that change while the frame stays."""
        for curve in self._curves:
            yield from curve.artists()
        yield from self._marks.artists()

    def _go_live(self) -> None:
        canvas: Any = self.figure.canvas
        if not canvas.supports_blit:
            return
        self._live = True
        for artist in self._moving():
            artist.set_animated(True)
        canvas.mpl_connect("draw_event", self._frame_drawn)
        canvas.mpl_connect("resize_event", self._resized)

    def _frame_drawn(self, event: Any) -> None:
        """The canvas has drawn itself without the moving parts: keep that, and put them on."""
        canvas: Any = self.figure.canvas
        if canvas.is_saving() or self.loss_axes not in self.figure.axes:
            return  # a picture file has them all; another `draw_run` has taken over the figure
        self._background = canvas.copy_from_bbox(self.figure.bbox)
        self._draw_moving()

    def _resized(self, event: Any) -> None:
        if self.loss_axes in self.figure.axes:
            self.fit()

    def _draw_moving(self) -> None:
        for artist in sorted(self._moving(), key=lambda a: a.get_zorder()):
            self.figure.draw_artist(artist)


def _shown_ranks(history: RunHistory) -> list[int | None]:
    """The workers, and the model they merge where that is evaluated on its own."""
    merged: list[int | None] = [None] if None not in history.ranks and history.has("eval_loss", None) else []
    return history.ranks + merged


def _names(entries: tuple[Entries, Entries]) -> list[list[str]]:
    return [[name for name, _ in part] for part in entries]


def _style_scale(axes: Axes, log: bool) -> None:
    """A linear axis of losses, or a log one; its limits follow."""
    if axes.get_yscale() != ("log" if log else "linear"):
        axes.set_ylim(1.0, 10.0)  # that any scale can show
        axes.set_yscale("log" if log else "linear")
