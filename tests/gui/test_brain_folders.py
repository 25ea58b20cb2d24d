"""A brain's folder renamed and deleted: only one of ours, and never one in training."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aios.brains.brain_list import Brain, list_brains, read_brain
from aios.brains.notes import read_notes, write_notes
from aios.brains.session_file import read_session
from aios.errors import UserError
from aios.gui.brain_folders import contents, delete_brain, rename_brain, why_not_renamed
from brains.left_behind import START, TRAIN, training_elsewhere, write_log, write_session


def made(folder: Path) -> Brain:
    """A brain that a window trained."""
    write_log(folder, START, TRAIN)
    write_session(folder, output="all that was said")
    return found(folder)


def found(folder: Path) -> Brain:
    brain = read_brain(folder)
    assert brain is not None
    return brain


def test_a_renamed_brain_is_the_same_under_its_new_name(tmp_path: Path) -> None:
    brain = made(tmp_path / "old")
    write_notes(brain.folder, "the one with the higher rate")
    folder = rename_brain(brain, "new name")
    assert folder == tmp_path / "new name"
    assert [b.name for b in list_brains(tmp_path)] == ["new name"]
    now, session = found(folder), read_session(folder)
    assert (now.state, now.loss, now.log) == (brain.state, brain.loss, folder / "metrics.jsonl")
    assert session is not None
    assert Path(session.output).read_text(encoding="utf-8") == "all that was said"
    assert read_notes(folder) == "the one with the higher rate"
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize("name", ["", " ", "..", "a/b", "../b", "x\ny", "other", "é" * 200])
def test_names_that_cannot_be_are_refused_by_the_one_rule(tmp_path: Path, name: str) -> None:
    brain = made(tmp_path / "old")
    (tmp_path / "other").mkdir()
    assert why_not_renamed(brain, name)
    with pytest.raises(UserError):
        rename_brain(brain, name)
    assert found(tmp_path / "old").loss == brain.loss


def test_a_name_that_is_taken_up_to_then_is_no_obstacle_to_itself(tmp_path: Path) -> None:
    assert why_not_renamed(made(tmp_path / "old"), "new") is None


def test_a_brain_in_training_is_neither_renamed_nor_deleted(tmp_path: Path) -> None:
    brain = made(tmp_path / "b")
    with training_elsewhere(brain.folder):
        for refused in (lambda: rename_brain(brain, "c"), lambda: delete_brain(brain)):
            with pytest.raises(UserError, match="is being trained"):
                refused()
    write_session(brain.folder, pid=os.getpid())  # a session that has not come to its lock yet
    with pytest.raises(UserError, match="is being trained"):
        delete_brain(brain)
    assert (brain.folder / "metrics.jsonl").exists()


def test_a_brain_is_deleted_with_all_its_files_and_nothing_else(tmp_path: Path) -> None:
    brain, other = made(tmp_path / "a"), made(tmp_path / "b")
    (tmp_path / "outside.txt").write_text("kept")
    (brain.folder / "link").symlink_to(tmp_path / "outside.txt")
    (brain.folder / "thesis.odt").write_text("years of work")
    assert contents(brain.folder).strange == ["link", "thesis.odt"]
    assert contents(brain.folder).files == 5
    delete_brain(brain)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "outside.txt"]
    assert found(other.folder).loss == other.loss


def test_what_no_training_left_is_left_alone(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    made(elsewhere)
    bundle = tmp_path / "brains"
    (bundle / "papers").mkdir(parents=True)
    (bundle / "papers" / "metrics.jsonl").write_text(json.dumps({"no": "record"}) + "\n")
    (bundle / "link").symlink_to(elsewhere, target_is_directory=True)
    for brain in list_brains(bundle):
        for refused in (lambda brain=brain: rename_brain(brain, "mine"), lambda brain=brain: delete_brain(brain)):
            with pytest.raises(UserError, match="is left alone"):
                refused()
    assert sorted(path.name for path in bundle.iterdir()) == ["link", "papers"]
    assert found(elsewhere).loss == 5.25
