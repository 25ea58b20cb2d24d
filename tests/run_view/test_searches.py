"""The curve of a search: read from a log, drawn with all rates it names, and the bounds in the picture of the run."""

from __future__ import annotations

import math
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from aios.auto_lr.search import Found
from aios.run_view.drawing import draw_run
from aios.run_view.search_picture import SearchPicture
from aios.run_view.searches import SearchCurve, newest_search
from run_view.logs import history_of, start, train

CURVE = [[1e-4, 7.0], [1e-3, 5.0], [1e-2, None]]
CLIMB = {"event": "adaptive_lr_climb", "ts": 1.0, "step": 30, "lr": 4e-3, "edge": 1e-2, "curve": CURVE}
INIT = {"event": "adaptive_lr_init", "ts": 1.0, "step": 30, "initial_lr": 4e-3, "lr_min": 4e-5, "lr_max": 6e-3}


def of(*records: dict[str, Any]) -> SearchCurve | None:
    return newest_search(history_of([start(), *records, *(train(step) for step in range(31, 60))]).decisions)


def figure_of(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    return figure


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_the_newest_search_and_the_bounds_that_came_of_it() -> None:
    curve = of(CLIMB, INIT)
    assert curve is not None
    assert (curve.how, curve.lr, curve.edge, curve.bounds) == ("climb", 4e-3, 1e-2, (4e-5, 6e-3))
    assert curve.points[1] == (1e-3, 5.0)
    raced = of(CLIMB, INIT, {**CLIMB, "event": "adaptive_lr_race", "edge": None, "lr": None})
    assert raced is not None
    assert (raced.how, raced.lr, raced.edge) == ("race", None, None)


@pytest.mark.parametrize("how", ["climb", "race"])
def test_a_search_makes_the_same_curve_from_the_log_and_just_found(how: Any) -> None:
    found = Found(how, (1e-4, 1e-3), (5.0, math.inf), 1e-4, 1e-3, "made up", 30)
    shown = SearchCurve.of(found.event(30))
    logged = of({**found.event(30), "ts": 1.0})
    assert logged is not None
    for curve in (shown, logged):
        assert (curve.how, curve.lr, curve.edge, curve.bounds) == (how, 1e-4, 1e-3, found.bounds)
        assert curve.reason == "made up"
        assert curve.points[0] == (1e-4, 5.0)
        assert math.isnan(curve.points[1][1])


def test_no_search_is_none_and_one_without_a_curve_neither() -> None:
    assert of(INIT) is None
    assert of({**CLIMB, "curve": []}, INIT) is None


@pytest.mark.parametrize("size", [(8.0, 4.5), (12.8, 8.0)])
def test_every_rate_that_is_named_is_drawn(size: tuple[float, float]) -> None:
    curve = of({**CLIMB, "reason": "higher rates than 0.006 gained nothing; the loss had risen"}, INIT)
    assert curve is not None
    picture = SearchPicture(figure_of(*size), curve)
    picture.figure.canvas.draw()
    names = ["rate found 0.004", "edge 0.01", "lr_min 4e-05", "lr_max 0.006"]
    assert legend(picture.axes) == ["loss of the climb", *names]
    low, high = picture.axes.get_xlim()
    assert low < 4e-5
    assert high > 1e-2
    box = picture.axes.get_legend().get_window_extent()  # type: ignore[union-attr]
    assert box.x1 <= 100 * size[0]
    assert box.y1 <= 100 * size[1]
    assert list(picture.csv_rows()) == [["learning_rate", "loss"], ["0.0001", "7"], ["0.001", "5"], ["0.01", ""]]


def test_the_picture_of_a_run_draws_its_bounds() -> None:
    history = history_of([start(), CLIMB, INIT, *(train(step) for step in range(1, 60))])
    picture = draw_run(figure_of(12.8, 8.0), [("run", history)])
    assert "lr_min 4e-05, lr_max 0.006" in legend(picture.lr_axes)
    low, high = picture.lr_axes.get_ylim()
    assert low < 4e-5
    assert high > 6e-3
