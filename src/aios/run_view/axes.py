"""How axes look, in every picture of a run."""

from __future__ import annotations

from matplotlib.axes import Axes

from aios.run_view.theme import Theme


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
