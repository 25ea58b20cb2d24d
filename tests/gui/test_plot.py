"""The picture under real mouse and keys: crosshair, zoom, pan, scale, smoothing, and what is saved of it."""

from __future__ import annotations

import csv
from pathlib import Path

from desktop import App, Screen
from run_view.logs import start, train, write

STEPS = 300


def seen(app: App) -> list[float]:
    """(first, last) step on the axis."""
    first, last = app.look()["view"]["shown_steps"]
    return [first, last]


def drag(app: App, from_: tuple[float, float], to: tuple[float, float], button: int = 1) -> None:
    app.point(*from_)
    app.screen.xdotool("mousedown", button)
    for part in (0.3, 0.7, 1.0):
        app.point(*(a + part * (b - a) for a, b in zip(from_, to, strict=True)))
    app.screen.xdotool("mouseup", button)


def test_the_picture_under_mouse_and_keys(screen: Screen, home: Path) -> None:
    records = [start(config={"steps": 2 * STEPS}), *(train(step, 2 + 5 / step) for step in range(1, STEPS + 1))]
    climb = {"event": "adaptive_lr_climb", "ts": 1.0, "step": 40, "lr": 1e-3, "edge": 3e-3, "reason": "made up"}
    climb["curve"] = [[1e-5 * 1.15**at, 5 - at / 20] for at in range(40)]
    log = write(home / "run.jsonl", [*records, climb, {"event": "eval", "ts": 1.0, "step": 100, "loss": 2.5}])
    with App(screen, home, str(log)) as app:
        app.wait(lambda: app.text("number.step") == f"{STEPS} / {2 * STEPS}", "the run")
        app.wait(lambda: seen(app) == [0.0, 1.012 * 2 * STEPS], "all of the planned steps")
        left, top, right, low = app.look()["view"]["frames"]["loss"]

        app.point(left + (right - left) * 100 / seen(app)[1], (top + low) / 2)
        app.wait(lambda: "evaluation 2.5000 (step 100)" in app.look()["crosshair"], "the values at the mouse")
        assert app.look()["crosshair"].splitlines()[0] in ("step 99", "step 100", "step 101")
        app.screen.xdotool("click", 4)
        app.wait(lambda: seen(app)[1] < 550, "the wheel to zoom in")
        drag(app, (left + 300, top + 100), (left + 200, top + 110), button=3)
        app.wait(lambda: seen(app)[0] > 80, "the drag to pan")
        app.click_at(left + 300, top + 100, times=2)
        app.wait(lambda: app.look()["view"]["steps"] is None, "a double click to show all")
        drag(app, (left + 50, top + 20), (left + 250, low - 20))
        app.wait(lambda: app.look()["view"]["loss"] is not None, "the box to choose steps and losses")
        assert seen(app)[1] - seen(app)[0] < 250
        app.press("ctrl+0")
        app.wait(lambda: app.look()["view"]["loss"] is None and seen(app)[1] > 600, "the key to show all")

        app.click_at(left + 10, low - 30)
        app.wait(lambda: app.look()["view"]["picture"] == "search", "a click on the climb to show its curve")
        assert not app.enabled("plot.log")
        app.press("ctrl+g")
        app.wait(lambda: app.look()["view"]["picture"] == "health", "the key to show the next picture")
        app.press("ctrl+g")
        app.wait(lambda: "frames" in app.look()["view"], "the losses again")

        app.press("ctrl+3", "plus", "plus", "shift+Left", "Right")
        app.wait(lambda: seen(app)[1] < 450 and app.look()["crosshair"] != "", "keys to zoom, pan and point")
        app.press("ctrl+l", "ctrl+m")
        app.wait(lambda: app.look()["view"]["log_loss"] and app.look()["view"]["smoothing"] == "strong", "log, smooth")
        app.press("ctrl+shift+s")
        app.type_into_file_dialog(str(home / "numbers.csv"))
        app.wait(lambda: (home / "numbers.csv").exists(), "the numbers")
        app.press("ctrl+shift+s")
        app.type_into_file_dialog(str(home / "picture.svg"))
        app.wait(lambda: (home / "picture.svg").exists(), "the drawing")
        first, last = seen(app)
    rows = list(csv.DictReader((home / "numbers.csv").read_text(encoding="utf-8").splitlines()))
    steps = [float(row["step"]) for row in rows]
    assert first - 1 <= min(steps) < first + 2
    assert max(steps) <= min(last + 1, STEPS)
    assert abs(float(rows[0]["loss"]) - 2 - 5 / steps[0]) < 1e-6
    assert "</svg>" in (home / "picture.svg").read_text(encoding="utf-8")[-200:]
