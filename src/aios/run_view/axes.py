"""How axes look and how much room is kept around them, in every picture of a run."""

from __future__ import annotations

from typing import NamedTuple

from matplotlib.axes import Axes

from aios.run_view.theme import Theme

_LETTER = 0.56  # of the height of a line: how wide a letter is, in the mean


class Margins(NamedTuple):
    """What is kept free around axes for ticks and names, whatever the figure's size."""

    left: float
    """Where axes begin, as a share of the figure's width."""
    right: float
    """Where they end, likewise."""
    bottom: float
    """Beneath the lowest, inches."""
    name: float
    """Where the name of a vertical axis stands, as a share of the axes' width."""


def margins(width: float, font_size: float) -> Margins:
    """In a figure `width` inches wide, for letters of `font_size` points."""
    line = font_size / 72
    left, right = 6.6 * line / width, 1 - 2.4 * line / width
    return Margins(left, right, 4.4 * line, -4.9 * line / ((right - left) * width))


def letters_in(width: float, font_size: float) -> int:
    """How many letters of `font_size` points stand side by side over `width` inches, about."""
    return int(width / (_LETTER * font_size / 72))


def style_axes(axes: Axes, theme: Theme) -> None:
    """Colours, grid and sizes of a theme; the grid shows where the ticks are."""
    axes.set_facecolor(theme.background)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(theme.muted)
    axes.tick_params(colors=theme.muted, labelcolor=theme.text, labelsize=theme.font_size - 1)
    axes.tick_params(left=False, bottom=False)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set_color(theme.text)
        axis.label.set_fontsize(theme.font_size)
