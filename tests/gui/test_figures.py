"""The figures of a run: what they say, and that none touches the next at any width."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aios.gui.figures import columns_that_fit, figure_texts
from run_view.logs import history_of, start, train

widths = st.lists(st.integers(1, 300), min_size=1, max_size=12)


def needed(sizes: list[int], columns: int, gap: int) -> int:
    return sum(max(sizes[column::columns]) for column in range(columns)) + (columns - 1) * gap


@given(widths, st.integers(0, 2000), st.integers(0, 40))
def test_columns_fit_or_there_is_one(sizes: list[int], room: int, gap: int) -> None:
    columns = columns_that_fit(sizes, room, gap)
    assert 1 <= columns <= len(sizes)
    assert columns == 1 or needed(sizes, columns, gap) <= room
    assert columns == len(sizes) or needed(sizes, len(sizes), gap) > room  # all in one row where there is room


def test_the_evaluation_stands_beside_the_training_loss() -> None:
    history = history_of([start(), train(1, 3.0), {"event": "eval", "step": 1, "loss": 3.25, "ppl": 25.79}])
    texts = figure_texts(history, 2.0)
    assert list(texts)[1:4] == ["loss", "eval_loss", "perplexity"]
    assert (texts["loss"], texts["eval_loss"], texts["perplexity"]) == ("3.0000", "3.2500", "25.8")


def test_what_is_not_known_is_a_dash_and_what_is_no_number_says_so() -> None:
    texts = figure_texts(history_of([start(), train(1, None)]), 2.0)
    assert (texts["loss"], texts["eval_loss"], texts["perplexity"]) == ("NaN", "—", "—")


def test_after_finish_now_the_total_is_the_new_one() -> None:
    finish = {"event": "adaptive_lr_anneal", "step": 67, "start": 67, "end": 87, "reason": "finish_now"}
    assert figure_texts(history_of([start(200), train(67), finish]), 2.0)["step"] == "67 / 87"
