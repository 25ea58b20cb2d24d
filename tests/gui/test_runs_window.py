"""The list of runs and the queue in a real window, by real mouse and keyboard."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from aios.brains.notes import read_notes
from brains.left_behind import START, TRAIN, write_log
from desktop import App, Screen
from training_process import TIMEOUT, read_log

LONG = "the-king-james-bible-on-a-small-model-with-a-rate-of-0.001-and-batches-of-{}"


def losses(app: App) -> list[str]:
    return [row["values"][3] for row in app.widget("runs")["rows"]]


def in_list(app: App) -> set[str]:
    return {Path(row["id"]).name for row in app.widget("runs")["rows"]}


def place_of(app: App, brain: str) -> tuple[int, int] | None:
    at = next(row["at"] for row in app.widget("runs")["rows"] if Path(row["id"]).name == brain)
    return (at[0], at[1]) if at is not None else None


def heading(app: App, column: str) -> None:
    app.click_at(*app.look()["runs-headings"][column])


def choose(app: App, listed: str, cell: str) -> None:
    """Click a row, again where the list has moved meanwhile, until it is selected."""

    def is_chosen() -> bool:
        app.click_row(listed, cell)
        time.sleep(0.5)
        return bool(app.row(listed, cell)["selected"])

    app.wait(is_chosen, f"{cell} to be selected")


def fill(app: App, name: str, text: str) -> None:
    """Type into the field of a question, which has the focus, in place of what is there."""
    app.wait(lambda: app.shows(name) and app.widget(name)["focus"], f"{name} to have the focus")
    app.press("ctrl+a", "BackSpace")
    app.screen.xdotool("type", "--delay", 8, text)
    app.wait(lambda: app.text(name) == text, f"{name} to hold {text}")


def file_manager(folder: Path) -> Path:
    """A file manager that only writes down what it is to open."""
    program, opened = folder / "bin" / "xdg-open", folder / "opened"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$1" > "{opened}"\n', encoding="utf-8")
    program.chmod(0o755)
    return opened


def tell_names_apart(app: App) -> None:
    """Names that begin alike are cut in their middle; the pointer tells the whole."""
    shown = {row["values"][0] for row in app.widget("runs")["rows"]}
    assert len(shown) == 3
    assert {text[:4] + text[-3:] for text in shown if "…" in text} == {"the-f-8", "the--16"}
    app.wait(lambda: place_of(app, LONG.format(16)) is not None, "the list to be drawn")
    app.point(*place_of(app, LONG.format(16)) or (0, 0))
    app.wait(lambda: app.look()["runs-tip"] == LONG.format(16), "the whole name")


def sort_by_mouse_and_keys(app: App) -> None:
    """By a press on a heading, again for the other order, and by keys."""
    heading(app, "loss")
    app.wait(lambda: losses(app) == ["5.000", "6.000", "7.000"], "the list sorted by loss")
    heading(app, "loss")
    app.wait(lambda: losses(app) == ["7.000", "6.000", "5.000"], "the order turned round")
    choose(app, "runs", "plain")
    app.press("r")
    app.wait(lambda: losses(app) == ["5.000", "6.000", "7.000"], "the order turned round by a key")
    app.press("Left", "Left")
    app.wait(lambda: [r["values"][1] for r in app.widget("runs")["rows"]] == ["unfinished"] * 3, "another column")


def test_brains_are_sorted_told_apart_renamed_annotated_and_deleted(
    screen: Screen, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brains, opened = home / "brains", file_manager(home)
    monkeypatch.setenv("PATH", f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}")
    for at, name in enumerate((LONG.format(8), LONG.format(16), "plain")):
        write_log(brains / name, START, *({**TRAIN, "ce": 5.0 + (at - 1) % 3, "step": step} for step in range(1, 9)))
    with App(screen, home) as app:
        app.press("ctrl+2")
        app.wait(lambda: len(app.widget("runs")["rows"]) == 3, "the brains")
        tell_names_apart(app)
        sort_by_mouse_and_keys(app)

        app.press("F2")
        fill(app, "rename.name", LONG.format(8))
        app.wait(lambda: "already" in app.text("rename.problem"), "the objection")
        fill(app, "rename.name", "psalms")
        app.press("Return")
        app.wait(lambda: (brains / "psalms").is_dir() and "psalms" in in_list(app), "the new name")
        assert not (brains / "plain").exists()

        choose(app, "runs", "psalms")
        app.click("runs.notes")
        fill(app, "notes.text", "the best so far")
        app.press("ctrl+Return")
        app.wait(lambda: "the best so far" in app.text("runs-about"), "the notes")
        assert read_notes(brains / "psalms") == "the best so far"
        app.click("runs.folder")
        app.wait(opened.exists, "the file manager")
        app.wait(lambda: opened.read_text(encoding="utf-8").strip() == str(brains / "psalms"), "the folder")

        app.click_row("runs", "psalms", times=2)
        app.wait(lambda: app.text("title") == "psalms", "the run")
        app.press("ctrl+2")
        app.wait(lambda: app.shows("runs") and app.widget("runs")["reachable"], "the list to be back")
        choose(app, "runs", "psalms")
        app.wait(lambda: app.widget("runs")["focus"], "the list to have the focus")
        app.press("Delete")
        app.wait(lambda: app.shows("answer.cancel"), "the question")
        app.press("Return")  # its first answer keeps the brain
        app.wait(lambda: not app.shows("answer.cancel"), "the question to go")
        assert (brains / "psalms").exists()
        app.click("runs.delete")
        app.click("answer.delete")
        app.wait(lambda: in_list(app) == {LONG.format(8), LONG.format(16)}, "the brain to go")
        app.wait(lambda: app.text("title") == "No run on show", "its run to go")
        assert not (brains / "psalms").exists()
        assert app.shows("runs")
        app.press("ctrl+q")
        app.process.wait(timeout=20)
    remembered = json.loads((home / "config" / "aios" / "window.json").read_text(encoding="utf-8"))
    assert (remembered["runs_column"], remembered["runs_descending"]) == ("state", False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_queued_runs_start_one_after_another(screen: Screen, home: Path, psalms: Path) -> None:
    brains, text = home / "brains", home / "text.txt"
    text.write_bytes(psalms.read_bytes())
    with App(screen, home) as app:
        app.fill("steps", "100000")
        app.wait(lambda: app.enabled("start"), "Start to be on")
        app.press("ctrl+Return")
        app.wait(lambda: app.text("state") == "running", "the training to run", TIMEOUT)
        app.press("ctrl+1")
        app.wait(lambda: app.text("start") == "Queue training", "Start to queue")
        app.fill("steps", "7")
        for count in (1, 2, 3):
            if count == 2:
                app.fill("dataset_file", str(text))
            app.wait(lambda: app.enabled("start"), "the settings to be checked")
            app.press("ctrl+Return")
            app.wait(lambda n=count: f"{n} wait" in app.text("reason"), "the run to wait")  # type: ignore[misc]
        app.press("ctrl+2")
        app.wait(lambda: app.shows("queue"), "the queue")
        assert [row["values"][0] for row in app.widget("queue")["rows"]] == ["first-2", "first-3", "first-4"]
        choose(app, "queue", "first-4")
        app.press("alt+Up", "alt+Up")
        app.wait(lambda: app.widget("queue")["rows"][0]["values"][0] == "first-4", "the order to change")
        app.press("Delete")
        app.wait(lambda: len(app.widget("queue")["rows"]) == 2, "the run to leave the queue")
        app.press("ctrl+q")
        app.click("answer.keep")
        app.process.wait(timeout=30)
    text.unlink()
    with App(screen, home) as app:  # reopened
        app.wait(lambda: app.text("state") == "running", "the training to be found again")
        app.press("alt+t")
        app.wait(lambda: (brains / "first-2").exists(), "the next run", TIMEOUT)
        app.wait(lambda: app.text("title") == "first-2", "the next run on show")
        app.wait(lambda: app.text("state") == "finished", "the next run to end", TIMEOUT)
        app.press("ctrl+2")
        app.wait(lambda: str(text) in app.text("queue-problem"), "the reason why it was passed over")
        assert "first-3" in app.text("queue-problem")
        assert read_log(brains / "first", "stopped")
        assert read_log(brains / "first-2", "final")[-1]["steps"] == 7
        assert not (brains / "first-3").exists()


def test_a_brain_can_be_deleted_while_its_log_is_still_being_read(screen: Screen, home: Path) -> None:
    log, steps = write_log(home / "brains" / "long", START), 400_000
    with log.open("a", encoding="utf-8") as file:
        file.write('{"event": "sample", "ts": 1, "step": 1, "prompt": "In", "text": " the beginning"}\n')
        file.writelines(f'{{"event": "train", "ts": {step}, "step": {step}, "ce": 3.0}}\n' for step in range(1, steps))
    with App(screen, home) as app:
        app.press("ctrl+2")
        app.click_row("runs", "long", times=2)
        app.wait(lambda: app.text("title") == "long", "the run")
        app.press("ctrl+2")
        app.click("runs.delete")
        app.click("answer.delete")
        reached = app.text("number.step")
        app.wait(lambda: app.text("title") == "No run on show", "its run to go")
        time.sleep(1)  # several looks at the log
        assert not reached.startswith(f"{steps - 1:,}"), "all was read before the brain went"
        assert app.look()["windows"] == 1, "it reports an error"
        app.press("ctrl+4")
        app.wait(lambda: app.shows("try.prompt"), "the trial")
        assert not app.shows("try.samples"), "the samples of the brain that is gone"


def test_the_table_of_keys_lies_whole_on_a_low_screen_and_is_scrolled_by_keys(screen: Screen, home: Path) -> None:
    with App(screen, home, "--scale", "2") as app:
        app.press("F1")
        app.wait(lambda: app.shows("answer.ok"), "the keys")
        app.wait(lambda: app.widget("answer.ok")["focus"], "its button to have the focus")
        button, table = app.widget("answer.ok"), app.widget("keys")
        assert button["y"] + button["height"] <= 800
        assert table["y"] >= 0
        assert "Ctrl+Q" in table["text"]
        assert app.widget("keys")["in_view"][1] < 1
        app.press("Next", "Next")
        app.wait(lambda: app.widget("keys")["in_view"][1] == 1, "the end of the table")


def test_keys_go_to_the_tab_that_is_on_show(screen: Screen, home: Path) -> None:
    for at, name in enumerate(("older", "newer")):
        os.utime(write_log(home / "brains" / name, START, TRAIN), (at + 1, at + 1))
    with App(screen, home) as app:
        app.fill("steps", "600")
        app.press("ctrl+2")
        app.wait(lambda: app.widget("runs")["focus"], "the list to have the focus")
        app.wait(lambda: app.text("runs-about").startswith("newer:"), "its first row to be selected")
        app.press("BackSpace", "7", "Down")
        app.wait(lambda: app.text("runs-about").startswith("older:"), "the next row")
        app.click_at(*app.look()["runs-headings"]["loss"], times=2)
        time.sleep(0.5)
        assert app.text("title") == "No run on show", "a double click on a heading opens what is selected"
        app.press("ctrl+1")
        app.wait(lambda: app.widget("field.dataset_file")["focus"], "the form to have the focus")
        assert app.text("field.steps") == "600"
        app.press("ctrl+4")
        app.wait(lambda: app.widget("try.prompt")["focus"], "the trial to have the focus")
        app.press("ctrl+2", "Return")
        app.wait(lambda: app.text("title") == "older", "the run that is selected in the list")
