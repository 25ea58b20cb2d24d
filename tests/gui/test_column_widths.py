"""The widths of the list's columns, and names that are too long for theirs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.gui.column_widths import ELLIPSIS, middle_ellipsis, widths


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
