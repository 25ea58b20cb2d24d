"""The picture of a search: loss against learning rate, with the rate found, the edge, and the bounds it sets."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator

from matplotlib.figure import Figure

from aios.run_view import scales
from aios.run_view.axes import letters_in, margins, style_axes
from aios.run_view.legends import Entries, columns_that_fit, put_legend, rows_of
from aios.run_view.searches import SearchCurve
from aios.run_view.theme import LIGHT, Theme

MOST_MARKED = 40
"""So many points are marked one by one; a climb of earlier versions has one for each step."""


class SearchPicture:
    """Drawn into `figure`, which is cleared first."""

    def __init__(self, figure: Figure, curve: SearchCurve, theme: Theme = LIGHT) -> None:
        self.figure, self.curve, self._theme = figure, curve, theme
        figure.clear()
        figure.set_facecolor(theme.background)
        self.axes = axes = figure.add_subplot()
        style_axes(axes, theme)
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")
        is_climb = curve.how == "climb"
        axes.set_ylabel("training loss (nats per token)" if is_climb else "loss after a short run")
        known = [(lr, loss) for lr, loss in curve.points if math.isfinite(loss) and lr > 0]
        (line,) = axes.plot(
            [lr for lr, _ in known], [loss for _, loss in known], "o-" if len(known) <= MOST_MARKED else "-",
            color=theme.curves[0], linewidth=1.9, ms=5, zorder=4,
        )  # fmt: skip
        self._entries: Entries = [("loss of the climb" if is_climb else "loss of each short run", line)]
        self._draw_rates()
        self._title = axes.text(
            0, 1.0, "", transform=figure.transFigure, color=theme.text, fontsize=theme.font_size, va="top"
        )
        self._set_limits([lr for lr, _ in known])
        self.fit()

    def _draw_rates(self) -> None:
        """A line at each rate that the search names."""
        curve, theme = self.curve, self._theme
        low, high = curve.bounds or (None, None)
        named = (
            ("rate found", curve.lr, theme.decision("increase").color, "-"),
            ("edge", curve.edge, theme.decision("spike_decrease").color, "--"),
            ("lr_min", low, theme.muted, ":"),
            ("lr_max", high, theme.muted, "-."),
        )
        for name, rate, color, style in named:
            if rate is not None:
                line = self.axes.axvline(rate, color=color, linestyle=style, linewidth=1.6, zorder=3)
                self._entries.append((f"{name} {rate:.3g}", line))

    def _set_limits(self, rates: list[float]) -> None:
        curve = self.curve
        shown = [*rates, *(rate for rate in (curve.lr, curve.edge, *(curve.bounds or ())) if rate is not None)]
        low, high = (min(shown), max(shown)) if shown else (1e-5, 1e-1)
        pad = max((high / low) ** 0.04, 1.05)
        self.axes.set_xlim(low / pad, high * pad)
        self.axes.set_xticks(*scales.rate_ticks(low / pad, high * pad))
        self.axes.set_xticks([], minor=True)

    def fit(self) -> None:
        """Give margins, legend and reason their size in inches, whatever the figure's."""
        width, height = (float(inches) for inches in self.figure.get_size_inches())
        line = self._theme.font_size / 72
        left, right, bottom, name = margins(width, self._theme.font_size)
        columns = columns_that_fit(self._entries, (right - left) * width, self._theme)
        letters = max(20, letters_in((right - left) * width, self._theme.font_size))
        told = textwrap.wrap(self.curve.reason[:1].upper() + self.curve.reason[1:], letters)
        above = 0.16 + 1.75 * line * rows_of(self._entries, columns) + 1.4 * line * len(told)
        self.axes.set_position((left, bottom / height, right - left, max(height - above - bottom, 0.2) / height))
        self._title.set_text("\n".join(told))
        self._title.set_position((left, 1 - 0.08 / height))
        self.axes.yaxis.set_label_coords(name, 0.5)
        put_legend(self.axes, self._entries, columns, self._theme)

    def csv_rows(self) -> Iterator[list[str]]:
        """What is drawn, as rows of a table; a cell is empty where training broke."""
        yield ["learning_rate", "loss"]
        for lr, loss in self.curve.points:
            yield [f"{lr:.8g}", f"{loss:.8g}" if math.isfinite(loss) else ""]
