"""Pictures of made-up histories, drawn without a window."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aios.run_view.drawing import LIGHT, DrawnRun, draw_run
from aios.run_view.history import RunHistory
from aios.run_view.view import View

SIZE = (12.8, 8.0)


def drawn(*histories: RunHistory, size: tuple[float, float] = SIZE, view: View | None = None) -> DrawnRun:
    """The picture of runs called `run 0`, `run 1`, ...; `size` in inches of 100 pixels."""
    figure = Figure(figsize=size, dpi=100)
    FigureCanvasAgg(figure)
    return draw_run(figure, [(f"run {at}", history) for at, history in enumerate(histories)], LIGHT, view=view)
