"""A desktop for tests and screenshots: a virtual screen, the window on it, and a hand on mouse and keyboard.

Events are real ones, made by xdotool through the X server's XTEST extension; where things are is read from the file
that the window writes on request (`aios.gui.automation`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

PATIENCE = 20.0
"""Seconds until something that must happen is given up on."""
APT_PACKAGES = {"Xvfb": "xvfb", "xdotool": "xdotool"}


class Screen:
    """A virtual screen (Xvfb) on a display of its own choosing, while entered."""

    def __init__(self, width: int = 1280, height: int = 800, dpi: int = 96) -> None:
        for program, package in APT_PACKAGES.items():
            if shutil.which(program) is None:
                raise RuntimeError(f"{program} is missing; run: apt-get install {package}")
        self._size, self._dpi = f"{width}x{height}x24", dpi

    def __enter__(self) -> Screen:
        reading, writing = os.pipe()
        self._server = subprocess.Popen(
            ["Xvfb", "-displayfd", str(writing), "-screen", "0", self._size, "-dpi", str(self._dpi), "-noreset"],
            pass_fds=(writing,),
            stderr=subprocess.DEVNULL,
        )
        os.close(writing)
        with os.fdopen(reading) as answer:
            number = answer.readline().strip()
        if not number:
            raise RuntimeError("Xvfb found no free display")
        self.display = f":{number}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.terminate()
        self._server.wait(timeout=20)

    def grab(self, path: Path) -> None:
        """Save what the screen shows as a picture."""
        from PIL import ImageGrab

        ImageGrab.grab(xdisplay=self.display).save(path, optimize=True)

    def xdotool(self, *arguments: object) -> None:
        """Have xdotool do something on this screen."""
        environment = {**os.environ, "DISPLAY": self.display}
        subprocess.run(["xdotool", *map(str, arguments)], env=environment, check=True, capture_output=True, timeout=30)


class App:
    """`aios gui` on a screen, while entered; leaves trainings alone when it is left."""

    def __init__(self, screen: Screen, folder: Path, *arguments: str, cwd: Path | None = None) -> None:
        self.screen, self._cwd = screen, cwd or folder
        self._report = folder / "window.json"
        self._report.unlink(missing_ok=True)
        self.aios = [sys.executable, "-m", "aios"]
        self._command = [*self.aios, "gui", *arguments]
        self._environment = {
            **os.environ,
            "DISPLAY": screen.display,
            "AIOS_GUI_INSPECT": str(self._report),
            "XDG_CONFIG_HOME": str(folder / "config"),
        }

    def __enter__(self) -> App:
        self.process = subprocess.Popen(
            self._command,
            env=self._environment,
            cwd=self._cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.wait(lambda: self._report.exists() and self.shows("outer"), "the window to appear")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        print(self.process.communicate(timeout=20)[0])

    # Seeing

    def look(self) -> dict[str, Any]:
        """The newest report of the window."""
        report: dict[str, Any] = json.loads(self._report.read_text(encoding="utf-8"))
        return report

    def widget(self, name: str) -> dict[str, Any]:
        """What the report says of one widget."""
        told: dict[str, Any] = self.look()["widgets"][name]
        return told

    def shows(self, name: str) -> bool:
        """Whether a widget is on the screen."""
        told = self.look()["widgets"].get(name)
        return told is not None and told["visible"]

    def text(self, name: str) -> str:
        """What stands on or in a widget."""
        return str(self.widget(name).get("text", ""))

    def enabled(self, name: str) -> bool:
        """Whether a widget can be used."""
        return "disabled" not in self.widget(name).get("state", ())

    def wait(self, happened: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Wait for `happened()`; fails, with what the window printed, when the window ends or it takes too long."""
        deadline = time.monotonic() + seconds
        while not happened():
            if self.process.poll() is not None:
                raise AssertionError(f"the window ended before {what}: {self.process.communicate()[0]}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{seconds:.0f} s were not enough for {what}; it shows {self._texts()}")
            time.sleep(0.05)

    def _texts(self) -> dict[str, str]:
        widgets = self.look()["widgets"] if self._report.exists() else {}
        texts = {name: told["text"] for name, told in widgets.items() if told["visible"] and told.get("text")}
        return texts | {"(cut off)": str(self.look()["cut_off"])} if texts else {}

    # Doing

    def point(self, x: float, y: float) -> None:
        """Move the pointer to a place on the screen."""
        self.screen.xdotool("mousemove", round(x), round(y))

    def click_at(self, x: float, y: float, *, times: int = 1, key: str | None = None) -> None:
        """Click at a place on the screen, with `key` held down."""
        self.point(x, y)
        if key is not None:
            self.screen.xdotool("keydown", key)
        self.screen.xdotool("click", "--repeat", times, "--delay", 60, 1)
        if key is not None:
            self.screen.xdotool("keyup", key)

    def click(self, name: str) -> None:
        """Click the middle of a widget (a tick box: its left end) once it can be seen and used, scrolling to it."""
        self.wait(lambda: self.shows(name) and self.enabled(name), f"{name} to be seen, and on")
        self.wait(lambda: self.widget(name)["reachable"] or self._scroll_towards(name), f"{name} to be within reach")
        told = self._settled(name)
        across = 8 if told["kind"] == "TCheckbutton" else told["width"] / 2
        self.click_at(told["x"] + across, told["y"] + told["height"] / 2)

    def _settled(self, name: str) -> dict[str, Any]:
        """A widget once it lies still: what has appeared or gone above it moves it a moment later."""
        told = self.widget(name)
        while True:
            time.sleep(0.15)
            before, told = told, self.widget(name)
            if (told["x"], told["y"]) == (before["x"], before["y"]):
                return told

    def _scroll_towards(self, name: str) -> bool:
        """Turn the mouse wheel over the form by one notch, so that the widget comes nearer."""
        start = self.widget("start")
        self.point(start["x"] + 40, start["y"] / 2)
        self.screen.xdotool("click", 5 if self.widget(name)["y"] > start["y"] / 2 else 4)
        time.sleep(0.3)
        return False

    def press(self, *keys: str) -> None:
        """Press keys, such as `ctrl+p` or `Tab`."""
        self.screen.xdotool("key", "--delay", 30, *keys)

    def fill(self, name: str, text: str) -> None:
        """Type `text` into a field in place of what is there; one outside the form is named in full."""
        target = name if "." in name else f"field.{name}"
        self.wait(lambda: self._has_cursor(target), f"the cursor to be in {name}")
        self.press("ctrl+a", "BackSpace")
        if text:
            self.screen.xdotool("type", "--delay", 8, text)
        self.wait(lambda: self.text(target) == text, f"{name} to hold {text!r}")

    def _has_cursor(self, name: str) -> bool:
        """Click a field: whether the cursor is in it then, and not in another that has moved under the pointer."""
        self.click(name)
        time.sleep(0.15)
        return bool(self.widget(name)["focus"])

    def type_into_file_dialog(self, path: str) -> None:
        """Give a path to Tk's file dialog, once it is there, and accept it."""
        self.wait(lambda: self.look()["windows"] > 1, "the file dialog")
        time.sleep(0.5)  # it takes the focus a moment after it appears
        self.press("ctrl+a", "BackSpace")
        self.screen.xdotool("type", "--delay", 8, path)
        self.press("Return")
        self.wait(lambda: self.look()["windows"] == 1, "the file dialog to close")

    def row(self, name: str, cell: str) -> dict[str, Any]:
        """The row of a list in which some cell says `cell`."""
        found: dict[str, Any] = next(row for row in self.widget(name)["rows"] if cell in row["values"])
        return found

    def click_row(self, name: str, cell: str, *, times: int = 1, key: str | None = None) -> None:
        """Click the row of a list in which some cell says `cell`."""
        self.wait(
            lambda: any(cell in row["values"] and row["at"] for row in self.widget(name)["rows"]), f"{cell} in {name}"
        )
        self.click_at(*self.row(name, cell)["at"], times=times, key=key)
