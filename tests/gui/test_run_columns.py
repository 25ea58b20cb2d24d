"""The list of runs as data: what sorts where, and names that are too long."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.gui.brains import Brain, State
from aios.gui.run_columns import COLUMNS, ELLIPSIS, Order, middle_ellipsis, natural, ordered, widths


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


def width(text: str) -> int:
    """Pixels of a text in a font whose letters differ."""
    return sum(9 if letter in "mw" else 4 if letter in "il1" else 6 for letter in text)


@given(st.text("abimlw1-", max_size=60), st.integers(6, 300))
def test_as_much_as_fits_is_shown(text: str, room: int) -> None:
    shown = middle_ellipsis(text, room, width)
    assert width(shown) <= room
    if shown != text:
        head, tail = shown.split(ELLIPSIS)
        assert text.startswith(head)
        assert text.endswith(tail)
        assert 0 <= len(head) - len(tail) <= 1
        assert width(text) > room


def test_names_that_share_a_beginning_stay_apart() -> None:
    names = [f"king-james-bible-tiny-lr-0.001-batch-{size}" for size in (8, 16, 32)]
    shown = {middle_ellipsis(name, 100, width) for name in names}
    assert len(shown) == 3
    assert all(name.startswith("king-") for name in shown)


@pytest.mark.parametrize(("room", "name"), [(500, 350), (300, 180), (100, 80)])
def test_the_name_takes_what_is_left_but_never_less_than_it_must(room: int, name: int) -> None:
    assert widths({"name": 180, "state": 90, "steps": 60}, room, 80)["name"] == {350: 350, 180: 150, 80: 80}[name]


def test_a_short_name_takes_no_more_than_it_needs_of_a_list_without_room() -> None:
    assert widths({"name": 40, "state": 90}, 100, 80) == {"name": 40, "state": 90}


def test_numbers_sort_as_numbers_whatever_is_around_them() -> None:
    names = ["a10b", "a9b", "10", "9", "a", "", "a9"]
    assert sorted(names, key=natural) == ["", "a", "a9", "a9b", "a10b", "9", "10"]
