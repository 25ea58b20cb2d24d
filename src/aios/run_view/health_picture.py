"""The second picture of a run: gradient norm and tokens per second, one curve per run and worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from aios.run_view import scales
from aios.run_view.axes import margins, style_axes
from aios.run_view.curves import POINTS, heights, widths
from aios.run_view.history import RunHistory
from aios.run_view.reading import name_of
from aios.run_view.theme import Theme
from aios.run_view.timeline import Decision

_KEYS = (("grad_norm", "gradient norm"), ("tokens_per_sec", "tokens per second"))
_SHARE_SHOWN = 0.995  # of the values; a single explosion may leave the picture upwards


class HealthPicture:
    """Drawn into `figure`, which is cleared first; follows its histories on `update`."""

    def __init__(self, figure: Figure, histories: Sequence[tuple[str, RunHistory]], theme: Theme) -> None:
        self._figure, self._runs, self._theme = figure, list(histories), theme
        self._build()

    def _curves(self) -> list[tuple[str, RunHistory, int | None]]:
        several = len(self._runs) > 1
        return [
            (name_of(label, rank, several), history, rank) for label, history in self._runs for rank in history.ranks
        ]

    def _build(self) -> None:
        theme = self._theme
        self._figure.clear()
        self._figure.set_facecolor(theme.background)
        first = self._figure.add_subplot(2, 1, 1)
        self._axes = (first, self._figure.add_subplot(2, 1, 2, sharex=first))
        self._built_for = self._curves()
        self._lines: list[tuple[Axes, Line2D, str, RunHistory, int | None]] = []
        for axes, (key, name) in zip(self._axes, _KEYS, strict=True):
            style_axes(axes, theme)
            axes.set_ylabel(name)
            axes.xaxis.set_major_formatter(scales.step_name)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
            for at, (label, history, rank) in enumerate(self._built_for):
                color = theme.curves[at % len(theme.curves)]
                (line,) = axes.plot([], [], color=color, linewidth=1.3, label=label)
                self._lines.append((axes, line, key, history, rank))
        first.tick_params(labelbottom=False)
        self._axes[1].set_xlabel("optimizer step")
        if len(self._built_for) > 1:
            first.legend(
                loc="lower left", bbox_to_anchor=(0, 1.0), ncols=min(4, len(self._built_for)), frameon=False,
                labelcolor=theme.text, fontsize=theme.font_size,
            )  # fmt: skip
        self.update()

    def update(self) -> None:
        """Show what the histories hold now; the caller redraws the canvas."""
        if self._curves() != self._built_for:
            self._build()
            return
        tops = dict.fromkeys(self._axes, 0.0)
        for axes, line, key, history, rank in self._lines:
            series = history.series(key, rank).thinned(POINTS)
            line.set_data(series.steps, series.mean)
            finite = sorted(series.mean[series.mean == series.mean])
            if finite:
                tops[axes] = max(tops[axes], finite[int(_SHARE_SHOWN * (len(finite) - 1))])
        for axes, top in tops.items():
            axes.set_ylim(0, 1.12 * top or 1.0)
        self._axes[0].set_xlim(0, max([1, *(history.step for _, history in self._runs)]) * 1.012)
        self.fit()

    def fit(self) -> None:
        """Give the margins their size in inches, whatever the figure's."""
        width, height = self._figure.get_size_inches()
        left, right, bottom, name = margins(width, self._theme.font_size)
        top = (2.6 if len(self._built_for) > 1 else 1.2) * self._theme.font_size / 72
        self._figure.subplots_adjust(
            left=left, right=right, bottom=min(0.3, bottom / height), top=max(0.5, 1 - top / height), hspace=0.16
        )
        for axes in self._axes:
            axes.yaxis.set_label_coords(name, 0.5)

    def csv_rows(self) -> Iterator[list[str]]:
        """What is drawn, as rows of a table."""
        yield ["curve", "of", "step", "value"]
        for _, line, key, *_ in self._lines:
            for step, value in zip(widths(line).tolist(), heights(line).tolist(), strict=True):
                yield [key, str(line.get_label()), f"{step:.10g}", f"{value:.8g}"]

    def highlight(self, decision: Decision | None) -> None:
        """There are no marks here to ring."""
