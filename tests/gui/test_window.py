"""The window on a real screen, by real mouse and keyboard: form, a whole training, bad input, looks."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from aios.run_view.reading import read_history
from desktop import App, Screen
from training_process import TIMEOUT, read_log


def train_record(step: int, **more: Any) -> dict[str, Any]:
    numbers = {"loss": 6.5, "ce": 6.0 - step / 100, "lr": 1e-3, "grad_norm": 0.5, "tokens_per_sec": 1000.0}
    return {"event": "train", "ts": 1e9 + step, "step": step, "step_time_s": 1.0, **numbers, **more}


def adjustment(step: int, decision: str = "increase") -> dict[str, Any]:
    rates = {"old_lr": 1e-3, "new_lr": 1.1e-3, "change_pct": 10.0, "reason": "improving (6.40% per window)"}
    metrics = {"loss_avg": 4.1, "cv": None}
    made = {"event": "adaptive_lr_adjustment", "ts": 1e9 + step, "step": step, "decision": decision}
    return {**made, **rates, "metrics": metrics}


def write_log(path: Path, records: list[dict[str, Any]], tail: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records) + tail, encoding="utf-8")
    return path


def place_of_mark(app: App, step: int) -> tuple[int, int]:
    x, y = next(mark["at"] for mark in app.look()["markers"] if mark["step"] == step)
    return x, y


def hover(app: App, step: int) -> str:
    """What the plot tells while the pointer is on a mark, wherever that is by now."""
    app.point(*place_of_mark(app, step))
    time.sleep(0.3)
    return app.text("plot-card") if app.shows("plot-card") else ""


def test_tick_start_and_see_every_adjustment(screen: Screen, home: Path) -> None:
    with App(screen, home) as app:
        assert "selected" in app.widget("field.auto_adjust_lr")["state"]
        app.click("field.auto_adjust_lr")
        app.wait(lambda: app.text("label.lr") == "Learning rate (fixed)", "the rate to be fixed")
        app.click("field.auto_adjust_lr")
        app.wait(lambda: app.text("label.lr") == "Learning rate (starting point)", "the rate to be a start")

        app.fill("steps", "0")
        app.wait(lambda: "at least 1" in app.text("problem.steps"), "the field to object")
        assert not app.enabled("start")
        assert "at least 1" in app.text("reason")
        app.fill("steps", "79")
        app.wait(lambda: "Too short to search" in app.text("doubts"), "what is doubtful about so short a run")
        assert "tokens of text; 79 steps read" in app.text("facts")
        app.fill("steps", "80")
        app.wait(lambda: not app.shows("problem.steps"), "the objection to go")  # the fields below it move up then
        app.fill("steps", "79")  # without a search the rate is raised as soon as the loss falls
        app.fill("lr", "1e-3")
        app.wait(lambda: app.enabled("start"), "Start to be on")
        assert not app.shows("problem.steps")
        command = app.look()["command"]
        app.click("start")
        app.wait(lambda: app.text("state") == "running", "the training to run")
        app.wait(lambda: app.text("start") == "Queue training", "Start to queue meanwhile")
        app.wait(lambda: "“first” is being trained" in app.text("reason"), "why it would wait")
        assert app.look()["command"] == command
        assert "--steps=79" in command
        app.wait(lambda: app.text("state") == "finished", "the training to finish", TIMEOUT)

        made = read_log(home / "brains" / "first", "adaptive_lr_adjustment")
        assert made
        app.wait(lambda: app.text("number.step") == "79 / 79", "the last step to be shown")
        app.wait(lambda: len(app.look()["markers"]) == len(made), "as many marks as adjustments")
        assert sorted(mark["step"] for mark in app.look()["markers"]) == [record["step"] for record in made]
        decided = read_history(home / "brains" / "first").decisions
        app.wait(lambda: len(app.widget("timeline")["rows"]) == len(decided), "every decision in the timeline")
        told = [(row["values"][0], row["values"][3]) for row in app.widget("timeline")["rows"]]
        assert told == [(str(d.step), d.sentence) for d in reversed(decided)]
        assert app.text("timeline-title") == f"Decisions ({len(decided)})"
        assert app.look()["progress"] == 1.0


def test_marks_and_timeline_lead_to_each_other(screen: Screen, home: Path) -> None:
    anneal = {"event": "adaptive_lr_anneal", "ts": 2e9, "step": 45, "start": 45, "end": 59, "reason": "end_of_run"}
    records = [*(train_record(step) for step in range(1, 60)), adjustment(20), adjustment(40, "spike_decrease"), anneal]
    with App(screen, home, str(write_log(home / "run.jsonl", records))) as app:
        app.wait(lambda: len(app.look()["markers"]) == 2, "the marks")
        app.wait(lambda: "Step 20: increase" in hover(app, 20), "what a mark tells")
        raised = "Raised the learning rate by 10 %, from 0.001 to 0.0011, because the loss falls steadily."
        assert app.text("plot-card").splitlines()[1:] == [
            raised, "fall of the loss per window: 6.40 %", "mean loss: 4.1",
            "spread of the loss / its mean: not finite",
        ]  # fmt: skip
        app.click_at(*place_of_mark(app, 20))
        app.wait(lambda: app.row("timeline", "20")["selected"], "the row of the mark")
        assert f"20\tincrease  {raised}\nfall of the loss per window\t6.40 %\n" in app.text("timeline")
        app.press("Tab")  # out of the picture
        app.click_row("timeline", "40")
        app.wait(lambda: app.row("timeline", "40")["selected"], "the row that was clicked")
        assert not app.row("timeline", "20")["selected"]
        assert "fall of the loss per window" in app.text("timeline").splitlines()[2]  # under the newer of the two
        app.press("Up")
        app.wait(lambda: app.row("timeline", "45")["selected"], "the row above it")
        (left, y), (right, _) = place_of_mark(app, 20), place_of_mark(app, 40)
        app.point(right + (right - left) / 2, y)  # at step 50
        app.wait(lambda: "goes down to zero until step 59" in app.text("plot-card"), "what the shaded stretch tells")
        with (home / "run.jsonl").open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(adjustment(step)) + "\n" for step in range(60, 1060))
        app.wait(lambda: app.text("timeline-title") == "Decisions (1,003)", "the new decisions")
        app.wait(lambda: app.row("timeline", "1,059")["at"] is not None, "the newest in view")
        lines = app.text("timeline").splitlines()
        assert len(lines) == 1000  # the oldest have gone, and with them the one that was chosen
        assert lines[-1].startswith("60\tincrease")


def at_mouse(app: App) -> str:
    """What the card tells with the pointer in the middle of the losses."""
    left, top, right, low = app.look()["view"]["frames"]["loss"]
    app.point((left + right) / 2, (top + low) / 2)
    time.sleep(0.3)
    return str(app.look()["crosshair"])


def test_two_runs_and_two_workers_over_each_other(screen: Screen, home: Path) -> None:
    for name, loss in (("one", 5.0), ("two", 4.0)):
        records = [train_record(step, ce=loss, rank=rank) for step in range(1, 30) for rank in (0, 1)]
        ending = [adjustment(10) | {"rank": 1}, {"event": "final", "ts": 2e9, "step": 29}]
        write_log(home / "brains" / name / "metrics.jsonl", [*records, *ending])
    with App(screen, home) as app:
        app.press("ctrl+2")
        app.click_row("runs", "one")
        app.click_row("runs", "two", key="ctrl")
        app.wait(lambda: app.enabled("runs.compare"), "Compare to be on")
        app.click("runs.compare")
        app.wait(lambda: "one" in app.text("title") and "two" in app.text("title"), "both runs")
        app.wait(lambda: len(app.look()["markers"]) == 2, "the marks of both")
        who = {row["values"][2] for row in app.widget("timeline")["rows"] if row["values"][1] == "increase"}
        assert who == {"one, worker 1", "two, worker 1"}
        app.wait(lambda: "one, worker 1: loss 5.0000" in at_mouse(app), "the values at the mouse")
        side_by_side = {row["values"][0]: row["values"][1:] for row in app.widget("compare")["rows"]}
        assert sorted(side_by_side["Training loss"]) == ["4.0000", "5.0000"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("The heavens declare\n", "no training log"),
        ('{"event": "train", "ste', None),
        pytest.param("", None, marks=pytest.mark.slow),
    ],
)
def test_a_log_that_is_none_is_told_and_half_a_line_is_not_minded(
    screen: Screen, home: Path, content: str, says: str | None
) -> None:
    log = home / "some.jsonl"
    log.write_text(content, encoding="utf-8")
    with App(screen, home, str(log)) as app:
        app.wait(lambda: app.text("title") == "some", "the run")
        if says is not None:
            app.wait(lambda: app.shows("banner") and says in app.text("banner"), "the banner")
        else:
            write_log(log, [train_record(1), train_record(2)])
            app.wait(lambda: app.text("number.step") == "2", "the records to be taken in")
            assert not app.shows("banner")


def test_disorder_nan_and_a_deleted_log(screen: Screen, home: Path) -> None:
    records = [train_record(3), train_record(1), train_record(2), train_record(4, ce=None, grad_norm=None)]
    log = write_log(home / "run.jsonl", records, tail='{"event": "tr')
    with App(screen, home, str(log)) as app:
        app.wait(lambda: app.text("number.step") == "4", "the records")
        assert app.text("number.loss") == "NaN"
        assert app.text("number.grad_norm") == "NaN"
        log.unlink()
        app.wait(lambda: app.shows("banner") and "is gone" in app.text("banner"), "the banner")
        assert app.text("number.step") == "4"


def test_a_brains_folder_that_cannot_be_written_keeps_start_off(screen: Screen, home: Path) -> None:
    (home / "file").write_text("no folder")
    with App(screen, home, "--bundle-dir", str(home / "file")) as app:
        app.wait(lambda: "nothing can be saved" in app.text("reason"), "the reason")
        assert not app.enabled("start")
        assert "to correct" in app.text("fold.Saving")
        app.click("reason")
        app.wait(lambda: app.widget("field.bundle_dir")["focus"], "the focus on the field in the way")
        app.wait(lambda: app.widget("problem.bundle_dir")["reachable"], "the problem beneath it to be in view")
        app.click("fold.Saving")
        app.wait(lambda: not app.shows("field.bundle_dir"), "the fold to close")


def tab_on(app: App) -> None:
    """Press Tab, and wait until the focus has gone on, however slow the machine."""
    before = app.look()["focus"]
    app.press("Tab")
    app.wait(lambda: app.look()["focus"] != before, f"the focus to leave {before}")


def test_everything_is_reached_by_keyboard(screen: Screen, home: Path) -> None:
    log = write_log(home / "run.jsonl", [*(train_record(step) for step in range(1, 30)), adjustment(20)])
    with App(screen, home, str(log)) as app:
        app.wait(lambda: len(app.look()["markers"]) == 1, "the run")
        app.press("ctrl+b")  # the form had folded away
        app.click("field.steps")
        app.wait(lambda: app.widget("field.steps")["focus"], "the cursor in the field")
        passed: set[str] = set()
        for _ in range(100):
            tab_on(app)
            passed |= {name for name, told in app.look()["widgets"].items() if told["focus"]}
            if "field.steps" in passed:
                break
        visible = {name for name, told in app.look()["widgets"].items() if told["visible"] and "state" in told}
        kinds = ("TEntry", "TCombobox", "TButton", "TCheckbutton", "Treeview")
        usable = {n for n in visible if app.widget(n)["kind"] in kinds and app.enabled(n)}
        assert usable <= passed
        app.press("F9")
        app.wait(lambda: app.look()["theme"] == "dark", "the dark theme")
        app.press("ctrl+2")
        app.wait(lambda: app.shows("runs"), "the list of runs")


@pytest.mark.parametrize(
    ("width", "height", "dpi"),
    [(1280, 800, 96), pytest.param(2560, 1600, 192, marks=pytest.mark.slow), (1280, 800, 192)],
)
def test_no_text_is_cut_off(home: Path, width: int, height: int, dpi: int) -> None:
    evaluation = {"event": "eval", "ts": 1e9 + 19, "step": 19, "loss": 5.25, "ppl": 190.6}
    log = write_log(home / "run.jsonl", [*(train_record(step) for step in range(1, 30)), evaluation, adjustment(20)])
    with Screen(width, height, dpi) as large, App(large, home, str(log)) as app:
        app.wait(lambda: len(app.look()["markers"]) == 1, "the run")
        app.wait(lambda: app.look()["cut_off"] == [], "all texts of the run to have room")
        for key in ("ctrl+1", "ctrl+2"):
            app.press(key)
            app.wait(lambda: app.look()["cut_off"] == [], "all texts beside it to have room")
            assert_figures_apart(app, 8 * dpi / 96)
        assert app.text("title") == "run"
        assert (app.text("number.eval_loss"), app.text("number.perplexity")) == ("5.2500", "190.6")


def assert_figures_apart(app: App, gap: float) -> None:
    """In one row no figure comes nearer to the next than `gap` pixels."""
    figures = [told for name, told in app.look()["widgets"].items() if name.startswith("number.")]
    for told in figures:
        behind = [other["x"] for other in figures if other["y"] == told["y"] and other["x"] > told["x"]]
        assert told["x"] + told["needs_width"] + gap <= min(behind, default=10_000)


def test_a_run_on_show_folds_the_form_away_and_takes_its_room(screen: Screen, home: Path) -> None:
    log = write_log(home / "run.jsonl", [train_record(step) for step in range(1, 30)])
    with App(screen, home) as app:
        app.wait(lambda: app.shows("field.steps"), "the form")
        assert not app.shows("fold")
        app.press("ctrl+o")
        app.type_into_file_dialog(str(log))
        app.wait(lambda: app.shows("plot") and not app.shows("field.steps"), "the form to fold away")
        app.wait(lambda: app.widget("plot")["height"] >= 2 * 349, "twice the height it had beneath the numbers")
        width = app.widget("plot")["width"]
        app.click("fold")
        app.wait(lambda: app.shows("field.steps") and app.text("fold") == "Hide form", "the form to be back")
        assert app.shows("plot")
        app.press("ctrl+b")
        app.wait(lambda: not app.shows("field.steps"), "the form to go by key")
        app.wait(lambda: app.widget("plot")["width"] == width, "the picture to have the width it had")
        app.press("ctrl+2")
        app.wait(lambda: app.shows("runs"), "the list to come by its key")
        app.press("ctrl+q")
        app.process.wait(timeout=20)
    with App(screen, home, str(log)) as app:
        app.wait(lambda: app.shows("plot") and app.shows("field.steps"), "the form to stand as it was left")


def test_settings_go_out_and_in_and_are_remembered(screen: Screen, home: Path) -> None:
    with App(screen, home) as app:
        app.fill("steps", "77")
        app.wait(lambda: app.enabled("start"), "the settings to be checked")
        app.press("ctrl+s")
        app.type_into_file_dialog(str(home / "out.toml"))
        app.wait(lambda: (home / "out.toml").exists(), "the settings file")
        app.press("ctrl+q")
        app.process.wait(timeout=20)
    check = [*app.aios, "hrm-hf", "lr-find", "--config", str(home / "out.toml"), "--steps=0"]
    done = subprocess.run(check, cwd=home, capture_output=True, text=True, check=False)
    assert "--steps is 0" in done.stderr  # the command line has read the file and minds its own flag only
    shutil.rmtree(home / "brains", ignore_errors=True)
    with App(screen, home) as app:
        assert app.text("field.steps") == "77"
        assert app.text("field.hidden_size") == "32"
        (home / "in.toml").write_text('steps = 55\nbundle_dir = "brains"\n', encoding="utf-8")
        app.press("ctrl+i")
        app.type_into_file_dialog(str(home / "in.toml"))
        app.wait(lambda: app.text("field.steps") == "55", "the settings to come in")
        assert app.text("field.hidden_size") == ""
