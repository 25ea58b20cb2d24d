"""Work beside the window: what becomes of jobs that are asked for faster than they are done."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aios.gui.background import Background


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


def deliver_until(background: Background, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happened() and time.monotonic() < deadline:
        background.deliver()
        time.sleep(0.01)
    assert happened()


def test_what_always_takes_longer_than_it_is_asked_for_is_handed_over_all_the_same(background: Background) -> None:
    """Of three jobs the second is left out, as the third was asked for before it could begin."""
    may_end, taken = threading.Event(), [0][:0]

    def job(number: int) -> Callable[[], int]:
        return lambda: number if may_end.wait(20) else -1

    for number in (1, 2, 3):
        background.submit("list", job(number), taken.append)
    may_end.set()
    deliver_until(background, lambda: len(taken) == 2)
    assert taken == [1, 3]
    assert not background.busy("list")


def test_an_error_is_told_although_the_next_job_of_its_kind_waits(background: Background, tmp_path: Path) -> None:
    taken: list[str] = []
    gone, there = tmp_path / "gone", tmp_path / "there"
    there.write_text("words", encoding="utf-8")
    background.submit("read", gone.read_text, taken.append)
    background.submit("read", there.read_text, taken.append)
    with pytest.raises(FileNotFoundError):
        deliver_until(background, lambda: bool(taken))
    deliver_until(background, lambda: taken == ["words"])
