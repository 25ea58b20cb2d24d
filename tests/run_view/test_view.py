"""The view's arithmetic, the values at the mouse, and the rows of the table: plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aios.run_view import scales
from aios.run_view.history import RunHistory
from aios.run_view.pointing import DrawnCurves, csv_rows, nearest, told, values_at
from aios.run_view.series import Series
from aios.run_view.smoothing import LEAST, smoothed
from aios.run_view.view import LEAST_STEPS, SMOOTHINGS, View, boxed, inside, panned, zoomed
from run_view.logs import history_of, start, train
from run_view.pictures import drawn

WHOLE = (0.0, 1000.0)


def run_of(steps: int, planned: int = 1000) -> RunHistory:
    records = [train(step, 2 + 5 / step) for step in range(1, steps + 1)]
    found = ((at, loss) for at, loss in ((50, 3.0), (100, 2.5), (150, 2.75)) if at <= steps)
    evals = [{"event": "eval", "ts": 1.0, "step": at, "loss": loss} for at, loss in found]
    return history_of([start(config={"steps": planned}), *records, *evals])


def test_zoom_keeps_the_place_under_the_mouse_and_ends_at_a_few_steps() -> None:
    assert zoomed(WHOLE, 250.0, 0.5) == (125.0, 625.0)
    narrow = zoomed((100.0, 106.0), 103.0, 0.1)
    assert narrow[1] - narrow[0] == pytest.approx(LEAST_STEPS)


def test_pan_stops_at_the_ends_of_the_run() -> None:
    assert panned((100.0, 200.0), 0.5) == (150.0, 250.0)
    assert inside((-50.0, 50.0), WHOLE) == (0.0, 100.0)
    assert inside((950.0, 1050.0), WHOLE) == (900.0, 1000.0)
    assert inside((-9.0, 2000.0), WHOLE) == WHOLE


def test_a_view_of_everything_is_the_whole_run() -> None:
    part = View(log_loss=True).with_steps((100.0, 200.0), WHOLE)
    assert part.steps == (100.0, 200.0)
    assert not part.is_whole
    assert part.with_steps((-10.0, 1010.0), WHOLE) == View(log_loss=True)
    assert part.whole() == View(log_loss=True)


def test_a_box_is_taken_in_either_direction_unless_it_is_too_small() -> None:
    assert boxed(9.0, 3.0, 4.0) == (3.0, 9.0)
    assert boxed(9.0, 8.0, 4.0) is None
    assert boxed(math.nan, 8.0, 0.0) is None


def test_smoothings_go_in_a_circle() -> None:
    view, seen = View(), []
    for _ in SMOOTHINGS:
        view = view.next_smoothing()
        seen.append(view.smoothing)
    assert sorted(seen) == sorted(SMOOTHINGS)
    assert view == View()


def test_smoothing_is_a_mean_of_what_came_before() -> None:
    steps = np.arange(1.0, 401.0)
    noisy = 3 + (-1.0) ** steps
    noisy[9] = math.nan
    curve = Series(steps, noisy, noisy, noisy, np.zeros(400, dtype=np.int64))
    assert smoothed(curve, 0.0) is curve
    light, strong = (smoothed(curve, share).mean for share in (0.005, 0.08))
    assert math.isnan(light[9])
    assert np.abs(strong[200:] - 3).max() < np.abs(light[200:] - 3).max() < 1 / LEAST
    constant = Series(steps, np.full(400, 2.5), noisy, noisy, curve.non_finite)
    assert smoothed(constant, 0.02).mean == pytest.approx(np.full(400, 2.5))


def test_values_at_the_mouse() -> None:
    steps = np.array([1.0, 2.0, 4.0])
    losses = (steps, np.array([5.0, 4.0, 3.0]))
    curves = DrawnCurves("a", None, "#000", losses, losses, (np.array([2.0]), np.array([4.5])), {"lr": losses})
    values = values_at(curves, 3.4)
    assert values == (4.0, 3.0, 3.0, 4.5, 2.0, 3.0)
    assert told(values) == "loss 3.0000, smoothed 3.0000, evaluation 4.5000 (step 2), LR 3"
    first = values_at(curves, -100.0)
    assert first is not None
    assert told(first) == "loss 5.0000, smoothed 5.0000, LR 5"
    assert nearest(steps[:0], 1.0) is None


def test_rows_say_what_is_drawn() -> None:
    picture = drawn(run_of(200), view=View(steps=(90.0, 110.0)))
    rows = list(csv_rows(picture.curves()))
    assert rows[0] == ["run", "worker", "step", "loss", "smoothed", "eval_loss", "lr"]
    by_step = {row[2]: row for row in rows[1:]}
    assert by_step["100"][3:] == ["2.05", by_step["100"][4], "2.5", "0.001"]
    assert float(by_step["100"][4]) == pytest.approx(2.06, abs=0.02)
    assert "80" not in by_step
    assert all(len(row) == len(rows[0]) for row in rows)


def test_the_axis_shows_the_planned_steps_from_the_start_and_a_part_when_asked() -> None:
    history = run_of(20)
    picture = drawn(history)
    assert picture.shown_steps == (0.0, 1012.0)
    history.add([train(step) for step in range(21, 60)])
    picture.update()
    assert picture.shown_steps == (0.0, 1012.0)
    picture.look_at(View(steps=(10.0, 30.0)))
    assert picture.shown_steps == (10.0, 30.0)
    assert picture.curves()[0].loss[0].max() == 31.0  # one point more, so that the line reaches the edge
    assert picture.loss_axes.get_ylim()[1] < 4.0  # the wild start is out of view
    picture.look_at(View())
    assert picture.shown_steps == (0.0, 1012.0)


def test_log_loss_and_back() -> None:
    picture = drawn(run_of(200))
    linear = picture.loss_axes.get_ylim()
    picture.look_at(View(log_loss=True))
    picture.figure.canvas.draw()
    assert picture.loss_axes.get_yscale() == "log"
    assert len(picture.loss_axes.get_yticks()) >= 3
    picture.look_at(View())
    assert picture.loss_axes.get_yscale() == "linear"
    assert picture.loss_axes.get_ylim() == pytest.approx(linear)


@pytest.mark.parametrize(("low", "high"), [(2.0, 7.6), (3.0, 4.7), (0.01, 8.0), (2.5, 2.6)])
def test_log_axis_has_a_handful_of_ticks(low: float, high: float) -> None:
    ticks = scales.log_loss_ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert all(low <= tick <= high for tick in ticks)


def test_the_best_evaluation_is_ringed_and_named() -> None:
    picture = drawn(run_of(200))
    legend = picture.loss_axes.get_legend()
    assert legend is not None
    assert "best 2.5 at step 100" in [text.get_text() for text in legend.get_texts()]


def test_runs_laid_over_each_other_have_their_own_colour_and_marks() -> None:
    first, second = drawn(run_of(200), run_of(160)).curves()
    assert first.color != second.color
    legend = drawn(run_of(200), run_of(160)).loss_axes.get_legend()
    assert legend is not None
    handles = legend.legend_handles[:2]
    assert len({handle.get_marker() for handle in handles if handle is not None}) == 2  # type: ignore[union-attr]
