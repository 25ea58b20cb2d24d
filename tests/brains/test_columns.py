"""The list of brains as data: what stands in its columns, and what sorts where."""

from __future__ import annotations

from pathlib import Path

import pytest

from aios.brains.brain_list import Brain, State
from aios.brains.columns import COLUMNS, Order, natural, ordered


def brain(name: str, state: State = State.FINISHED, step: int = 1, **more: float | None) -> Brain:
    return Brain(Path("brains") / name, Path("log"), state, step, **more)  # type: ignore[arg-type]


BRAINS = [
    brain("run-10", State.FAILED, 30, loss=5.0, eval_loss=4.5, best_loss=4.5),
    brain("Run-2", State.RUNNING, 200, loss=4.0),
    brain("bible", State.FINISHED, 9, loss=6.0, eval_loss=4.0, best_loss=3.0),
]


@pytest.mark.parametrize(
    ("column", "names"),
    [
        ("", ["run-10", "Run-2", "bible"]),
        ("name", ["bible", "Run-2", "run-10"]),
        ("state", ["Run-2", "bible", "run-10"]),
        ("steps", ["bible", "run-10", "Run-2"]),
        ("loss", ["Run-2", "run-10", "bible"]),
        ("eval", ["bible", "run-10", "Run-2"]),
        ("best", ["bible", "run-10", "Run-2"]),
        ("a column of a later version", ["run-10", "Run-2", "bible"]),
    ],
)
def test_every_column_sorts(column: str, names: list[str]) -> None:
    assert [b.name for b in ordered(BRAINS, Order(column))] == names


def test_what_is_not_known_is_last_in_both_directions() -> None:
    assert [b.name for b in ordered(BRAINS, Order("eval", True))] == ["run-10", "bible", "Run-2"]


def test_a_heading_goes_up_down_and_back() -> None:
    first = Order().pressed("loss")
    assert [first, first.pressed("loss"), first.pressed("loss").pressed("loss")] == [
        Order("loss"), Order("loss", True), Order(),
    ]  # fmt: skip
    assert Order("loss", True).pressed("name") == Order("name")
    assert Order("loss").heading(COLUMNS[3]) != Order().heading(COLUMNS[3]) == "Loss"


def test_the_arrow_keys_reach_every_column_and_none() -> None:
    passed = [Order().moved(by).column for by in range(len(COLUMNS) + 2)]
    assert passed == ["", *(column.name for column in COLUMNS), ""]
    assert Order().moved(-1).column == COLUMNS[-1].name


def test_numbers_sort_as_numbers_whatever_is_around_them() -> None:
    names = ["a10b", "a9b", "10", "9", "a", "", "a9"]
    assert sorted(names, key=natural) == ["", "a", "a9", "a9b", "a10b", "9", "10"]
