"""The window in control of real trainings: pause, resume, stop, close, find again, compare, kill, crash."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from desktop import App, Screen
from training_process import TIMEOUT, read_log

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def begin(app: App, steps: int) -> None:
    app.press("ctrl+1")  # a run on show has folded the form away
    app.fill("steps", str(steps))
    app.press("ctrl+Return")  # at once: it starts when the settings are checked
    in_state(app, "running")  # what is on show before is another run
    app.wait(lambda: steps_done(app)() >= 5, "the first steps", TIMEOUT)


def steps_done(app: App) -> Callable[[], int]:
    return lambda: int(app.text("number.step").split("/")[0].replace(",", "").strip("— ") or 0)


def in_state(app: App, state: str) -> None:
    app.wait(lambda: app.text("state") == state, f"the training to be {state}", TIMEOUT)


def cancel(app: App) -> None:
    app.click("answer.cancel")
    app.wait(lambda: not app.shows("answer.cancel"), "the question to go")


def agrees_with_log(app: App, brain: Path) -> None:
    made = read_log(brain, "adaptive_lr_adjustment")
    app.wait(lambda: len(app.look()["markers"]) == len(made), "as many marks as adjustments")


def pid_of(brain: Path) -> int:
    return int(json.loads((brain / "training.json").read_text())["pid"])


def test_pause_resume_stop_reopen_compare(screen: Screen, home: Path) -> None:
    first, second = home / "brains" / "first", home / "brains" / "first-2"
    with App(screen, home) as app:
        begin(app, 2000)
        app.click("pause")
        in_state(app, "paused")
        paused_at = read_log(first, "stopped")[-1]["step"]
        assert app.text("pause") == "Resume"
        app.click("pause")
        in_state(app, "running")
        app.wait(lambda: steps_done(app)() > paused_at, "the run to go on", TIMEOUT)
        assert read_log(first, "run_resumed")[-1]["step"] == paused_at
        app.wait(lambda: app.text("number.eta") != "—", "the time left")
        app.press("alt+t")
        in_state(app, "stopped")
        agrees_with_log(app, first)

        begin(app, 80)  # the form has moved on to a free name
        in_state(app, "finished")
        agrees_with_log(app, second)
        app.press("ctrl+q")
        app.process.wait(timeout=30)

    with App(screen, home) as app:  # reopened
        app.press("ctrl+2")
        app.click_row("runs", "first", times=2)
        app.wait(lambda: app.text("title") == "first" and app.text("state") == "stopped", "the first run")
        agrees_with_log(app, first)
        app.press("ctrl+2")
        app.click_row("runs", "first-2")
        app.click("runs.compare")
        app.wait(lambda: app.text("title") == "first + first-2", "both runs")
        made = len(read_log(first, "adaptive_lr_adjustment")) + len(read_log(second, "adaptive_lr_adjustment"))
        app.wait(lambda: len(app.look()["markers"]) == made, "the marks of both")


def test_the_training_outlives_the_window_and_is_found_again(screen: Screen, home: Path) -> None:
    brain = home / "brains" / "first"
    with App(screen, home) as app:
        begin(app, 100_000)
        app.press("ctrl+q")
        cancel(app)
        app.press("ctrl+q")
        app.click("answer.keep")
        app.process.wait(timeout=30)
    os.kill(pid_of(brain), 0)
    with App(screen, home) as app:
        in_state(app, "running")
        assert app.text("title") == "first"
        before = steps_done(app)()
        app.wait(lambda: steps_done(app)() > before, "new steps", TIMEOUT)
        app.press("ctrl+q")
        app.click("answer.stop")
        app.process.wait(timeout=TIMEOUT)
    assert read_log(brain, "stopped")[-1]["reason"] == "stop_file"


def test_kill_asks_and_a_crash_is_explained(screen: Screen, home: Path) -> None:
    brain = home / "brains" / "first"
    with App(screen, home) as app:
        begin(app, 100_000)
        app.click("kill")
        cancel(app)
        assert app.text("state") == "running"
        app.press("alt+k")
        app.click("answer.kill")
        in_state(app, "killed")

        begin(app, 100_000)
        os.killpg(pid_of(home / "brains" / "first-2"), signal.SIGKILL)  # by somebody else
        in_state(app, "failed")
        app.wait(lambda: app.shows("banner"), "the banner")
        app.click("output")
        app.wait(lambda: app.shows("answer.ok"), "the output")
        app.press("Escape")
    assert not read_log(brain, "stopped")


def test_a_training_whose_folder_is_deleted_stays_in_hand(screen: Screen, home: Path) -> None:
    with App(screen, home) as app:
        begin(app, 100_000)
        shutil.rmtree(home / "brains" / "first")
        before = steps_done(app)()
        app.wait(lambda: steps_done(app)() > before + 5 or app.text("state") != "running", "new steps", TIMEOUT)
        assert app.text("state") == "running"
        app.click("stop")
        in_state(app, "stopped")
    assert read_log(home / "brains" / "first", "stopped")[-1]["reason"] == "stop_file"


def test_finish_now_ends_the_run_as_usual(screen: Screen, home: Path) -> None:
    with App(screen, home) as app:
        begin(app, 1500)
        app.click("finish")
        in_state(app, "finished")
    final = read_log(home / "brains" / "first", "final")[-1]
    assert final["steps"] < 1500


def test_a_brain_is_continued_from_the_list(screen: Screen, home: Path) -> None:
    with App(screen, home) as app:
        begin(app, 40)
        in_state(app, "finished")
        app.press("ctrl+2")
        app.click_row("runs", "first")
        app.click("runs.continue")
        app.fill("continue.steps", "10")
        app.wait(lambda: "above 40" in app.text("continue.problem"), "the objection")
        app.fill("continue.steps", "60")
        app.click("answer.continue")
        app.wait(lambda: app.text("number.step") == "60 / 60", "the new steps", TIMEOUT)
        in_state(app, "finished")
        assert app.text("number.step") == "60 / 60"
