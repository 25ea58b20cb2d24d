"""The window as a desktop shows it: under a window manager, with a title bar that takes room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop import App, Screen

SIZE = (1280, 800)


@pytest.fixture
def desktop() -> Iterator[Screen]:
    """A screen of its own, with a window manager."""
    if shutil.which("openbox") is None:
        pytest.skip("needs openbox (apt-get install openbox)")
    with Screen(*SIZE) as screen:
        manager = subprocess.Popen(
            ["openbox", "--sm-disable"], env={**os.environ, "DISPLAY": screen.display}, stderr=subprocess.DEVNULL
        )
        yield screen
        manager.terminate()
        manager.wait(20)


def test_a_managed_window_lies_whole_on_the_screen_and_heeds_mouse_and_keys(desktop: Screen, home: Path) -> None:
    with App(desktop, home) as app:
        outer = app.widget("outer")
        assert outer["x"] >= 0
        assert outer["y"] > 50, "title bar and menu bar are above it"
        assert outer["x"] + outer["width"] <= SIZE[0]
        assert outer["y"] + outer["height"] <= SIZE[1]
        app.wait(lambda: app.enabled("start"), "Start to be on")
        app.fill("batch_size", "0")
        app.wait(lambda: app.shows("problem.batch_size"), "the problem")
        app.press("ctrl+2")
        app.wait(lambda: app.shows("runs"), "the list of runs")
        app.press("F1")
        app.wait(lambda: app.shows("dialog"), "the keys, in a window of their own")
        app.press("Escape")
        app.wait(lambda: not app.shows("dialog"), "it to be gone")
        app.press("ctrl+1")
        app.wait(lambda: app.shows("field.batch_size"), "the form, which has the keyboard again")
