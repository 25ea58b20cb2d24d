"""`aios hrm-hf runs`: the brains in a folder, as the window lists them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from aios.brains.columns import COLUMNS
from aios.brains.notes import write_notes
from aios.cli.runs_command import SortOption
from brains.left_behind import START, TRAIN, write_log
from training_process import run_aios

LONG = "the-king-james-bible-on-a-small-model-with-a-rate-of-0.001-and-batches-of-16"


@pytest.fixture(scope="module")
def brains(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("brains")
    evaluated = [{"event": "eval", "step": step, "loss": loss} for step, loss in ((2, 3.5), (4, 3.75))]
    write_log(folder / LONG, START, *({**TRAIN, "step": step} for step in range(1, 5)), *evaluated)
    write_log(folder / "run-10", START, {**TRAIN, "ce": 4.0}, {"event": "final", "step": 40})
    write_log(folder / "run-2", START, {**TRAIN, "ce": 6.0}, {"event": "stopped", "reason": "stop_file", "step": 2})
    write_notes(folder / "run-2", "look again")
    return folder


def test_the_table_has_every_brain_whole(brains: Path) -> None:
    done = run_aios("hrm-hf", "runs", f"--bundle-dir={brains}", "--sort=name")
    assert done.returncode == 0, done.stderr
    heading, *rows = [line.split() for line in done.stdout.splitlines()]
    assert heading == ["Brain", "State", "Steps", "Loss", "Eval", "Best"]
    assert [row[:2] for row in rows] == [["run-2", "stopped"], ["run-10", "finished"], [LONG, "unfinished"]]
    assert rows[2][2:] == ["4", "/", "40", "5.250", "3.750", "3.500"]


def test_json_tells_what_is_known_of_each(brains: Path) -> None:
    done = run_aios("hrm-hf", "runs", f"--bundle-dir={brains}", "--sort=loss", "--reverse", "--json")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [brain["loss"] for brain in told] == [6.0, 5.25, 4.0]
    assert (told[0]["notes"], told[0]["state"], told[0]["eval_loss"]) == ("look again", "stopped", None)
    assert (told[1]["eval_loss"], told[1]["best_loss"], told[1]["step"], told[1]["steps"]) == (3.75, 3.5, 4, 40)


def test_every_column_can_be_sorted_by() -> None:
    assert get_args(get_args(SortOption)[0]) == ("newest", *(column.name for column in COLUMNS))


def test_a_folder_that_is_not_there_is_told_in_a_sentence(tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "runs", f"--bundle-dir={tmp_path / 'none'}")
    assert done.returncode == 2
    assert "no folder" in done.stderr
    assert run_aios("hrm-hf", "runs", f"--bundle-dir={tmp_path}").stdout.startswith("No brains in")
