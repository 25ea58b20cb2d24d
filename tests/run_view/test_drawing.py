"""The picture: what is in it, that it follows a growing run, and that no text lies on another."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from aios.errors import UserError
from aios.run_view import scales
from aios.run_view.drawing import DARK, LIGHT, SEARCH_SIZE, DrawnRun, blank_picture, draw_run, save_picture
from aios.run_view.health_picture import HealthPicture
from aios.run_view.history import RunHistory
from run_view.logs import adjustment, history_of, start, train
from run_view.pictures import drawn

DECISIONS = tuple(LIGHT.decisions)


def run_of(steps: int, ranks: int = 1, first: int = 1) -> list[dict[str, Any]]:
    """A falling loss with an adjustment, of each kind in turn, every 20 steps."""
    records: list[dict[str, Any]] = []
    for step in range(first, first + steps):
        for rank in range(ranks):
            tag = {"rank": rank} if ranks > 1 else {}
            records.append(train(step, 2 + 5 / step + rank + 0.1 * (-1) ** step, **tag))
            if step % 20 == 0:
                decision = DECISIONS[step // 20 % len(DECISIONS)]
                records.append(adjustment(step, decision, 1e-3 * (1 + step / 500), **tag))
        if step % 50 == 0:
            records.append({"event": "eval", "ts": float(step), "step": step, "loss": 2.5})
    return records


def pixels(picture: DrawnRun) -> np.ndarray:
    canvas: Any = picture.figure.canvas
    return np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize("place", ["nowhere/run.png", "file/run.svg"])
def test_a_picture_that_cannot_be_written_is_told_in_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"run\.\w+ cannot be written \(.+\); choose another place\.$"):
        save_picture(blank_picture(SEARCH_SIZE), tmp_path / place)


def test_a_picture_has_the_size_it_was_begun_with(tmp_path: Path) -> None:
    save_picture(blank_picture(SEARCH_SIZE), tmp_path / "search.png")
    assert imread(tmp_path / "search.png").shape == (495, 880, 4)


def test_every_adjustment_has_its_mark() -> None:
    history = history_of([start(), *run_of(400)])
    picture = drawn(history)
    marked = [a for _, adjustments in picture.markers for a in adjustments]
    assert sorted(marked, key=lambda a: a.step) == history.adjustments
    assert len(marked) == 20
    for artist, adjustments in picture.markers:
        assert list(artist.get_xdata()) == [a.step for a in adjustments]
        assert list(artist.get_ydata()) == [a.new_lr for a in adjustments]


@pytest.mark.parametrize("runs", [1, 2])
def test_every_picture_calls_the_workers_the_same(runs: int) -> None:
    histories = [(f"run {at}", history_of([start(), *run_of(40, ranks=2)])) for at in range(runs)]
    picture = drawn(*(history for _, history in histories))
    health = HealthPicture(blank_picture(SEARCH_SIZE), histories, LIGHT)
    named = [str(row[1]) for row in health.csv_rows()][1:]
    legend = [text.get_text() for text in picture.loss_axes.get_legend().get_texts()]
    assert list(dict.fromkeys(named)) == legend[: 2 * runs]
    assert legend[1] == ("worker 1" if runs == 1 else "run 0, worker 1")


def test_marks_answer_to_the_mouse() -> None:
    picture = drawn(history_of([start(), *run_of(400)]))
    wanted = picture.markers[0].adjustments[1]
    x, y = picture.lr_axes.transData.transform((wanted.step, wanted.new_lr))
    assert picture.nearest(x + 3, y - 3) == wanted
    assert picture.nearest(x, y + 90) is None
    found = picture.decision_at(x + 3, y - 3)
    assert found is not None
    assert found.adjustment is wanted
    assert picture.decision_at(x, y + 90) is None  # no shaded stretch


def test_update_follows_the_run_and_new_kinds_of_marks() -> None:
    history = history_of([start(), *run_of(100)])
    picture = drawn(history)
    before = sum(len(adjustments) for _, adjustments in picture.markers)
    history.add(run_of(200, first=101))
    picture.update()
    assert sum(len(adjustments) for _, adjustments in picture.markers) == 15 > before
    assert picture.loss_axes.get_xlim()[1] >= 300


@pytest.mark.parametrize("ranks", [1, 3])
def test_cheap_redraw_equals_a_full_one(ranks: int) -> None:
    history = history_of([start(), *run_of(300, ranks)])
    picture = drawn(history)
    picture.redraw()
    history.add(run_of(5, ranks, first=301))
    picture.update()
    blank = pixels(picture)
    picture.redraw()
    cheap = pixels(picture)
    picture.figure.canvas.draw()
    assert np.array_equal(cheap, pixels(picture))
    assert not np.array_equal(cheap, blank)


def test_ring_comes_and_goes() -> None:
    history = history_of([start(), *run_of(100), {"event": "stopped", "step": 50, "reason": "stop_file"}])
    picture = drawn(history)
    picture.redraw()
    plain = pixels(picture)
    change = next(d for d in history.decisions if d.adjustment is not None)
    stop = next(d for d in history.decisions if d.kind == "end")
    for decision in (change, stop):  # one with a mark, one without
        picture.highlight(decision)
        picture.redraw()
        assert not np.array_equal(plain, pixels(picture))
    picture.highlight(None)
    picture.redraw()
    assert np.array_equal(plain, pixels(picture))


@pytest.mark.parametrize("size", [(12.8, 8.0), (7.0, 5.0), (25.6, 16.0)])
@pytest.mark.parametrize(("runs", "ranks"), [(1, 1), (3, 1), (1, 4)])
def test_no_text_lies_on_another_or_outside(size: tuple[float, float], runs: int, ranks: int) -> None:
    history = history_of([start(unigram_entropy=5.7), *run_of(400, ranks)])
    picture = drawn(*[history] * runs, size=size)
    picture.figure.canvas.draw()
    texts = [t for t in picture.figure.findobj(Text) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts if t.get_window_extent().width > 0]
    boxes = [(text, box) for text, box in boxes if not _hidden_tick(picture, text, box)]
    assert len(boxes) > 10
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0, text  # noqa: PT018
        assert box.x1 <= 100 * size[0] and box.y1 <= 100 * size[1], text  # noqa: PT018
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)


def _hidden_tick(picture: DrawnRun, text: str, box: Any) -> bool:
    """matplotlib keeps tick labels beyond the limits, and those of the shared axis, without drawing them."""
    for axes in (picture.loss_axes, picture.lr_axes):
        frame = axes.get_window_extent()
        for axis, low, high, middle in (
            (axes.xaxis, frame.x0, frame.x1, (box.x0 + box.x1) / 2),
            (axes.yaxis, frame.y0, frame.y1, (box.y0 + box.y1) / 2),
        ):
            if any(label.get_window_extent().bounds == box.bounds for label in axis.get_ticklabels()):
                return not low - 1 <= middle <= high + 1
    return False


def test_empty_history_can_be_drawn_and_grow() -> None:
    history = RunHistory()
    picture = drawn(history)
    picture.redraw()
    history.add([start(), *run_of(100)])
    picture.update()
    picture.redraw()
    assert len([a for _, adjustments in picture.markers for a in adjustments]) == 5


def test_many_adjustments_are_thinned() -> None:
    history = history_of([start(), train(9000), *(adjustment(step) for step in range(1, 9001))])
    assert sum(len(adjustments) for _, adjustments in drawn(history).markers) <= 700


def test_dark_is_dark() -> None:
    figure = Figure()
    FigureCanvasAgg(figure)
    picture = draw_run(figure, [("run", history_of(run_of(50)))], DARK)
    figure.canvas.draw()
    assert np.median(pixels(picture)[..., :3]) < 60


def test_outlier_does_not_flatten_the_loss() -> None:
    calm = np.linspace(5.0, 2.0, 1000)
    wild = calm.copy()
    wild[500] = 1e6
    bottom, top = scales.loss_limits([wild], [calm], None)
    assert bottom < 2.0
    assert 5.0 < top < 12.0


@pytest.mark.parametrize(("low", "high"), [(1e-3, 2.1e-3), (1e-4, 3e-3), (1e-7, 1e-2), (1e-30, 1.0)])
def test_rate_axis_has_a_handful_of_ticks(low: float, high: float) -> None:
    values, names = scales.rate_ticks(low, high)
    assert 2 <= len(values) <= 10
    assert all(low <= value <= high for value in values)
    assert [float(name) for name in names] == pytest.approx(values)


def test_constant_rate_and_a_rate_that_vanishes_have_sane_limits() -> None:
    low, high = scales.rate_limits([np.full(10, 1e-3)], [])
    assert low < 1e-3 < high < 3e-3
    low, high = scales.rate_limits([np.array([1e-3, 1e-12, 0.0])], [np.array([1e-3])])
    assert low > 1e-8
