"""Names and places that a person gives: one rule for all of them, one sentence, and nothing written elsewhere."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from aios.brains.brain_list import free_name
from aios.data.tokenizer import bundled_corpus_path
from aios.gui.form import check_on_disk
from aios.runs.brain_name import MAX_BYTES, numbered, why_not_a_name
from training_process import TINY, run_aios, train_args

RECORD = '{"event": "run_start", "ts": 1.5, "step": 0}\n'


def refused(folder: Path, *args: str | bytes) -> str:
    """The one sentence with which a training in `folder`/bundle is refused; nothing may have been written."""
    before = snapshot(folder)
    done = run_aios(*train_args(folder / "bundle"), *map(os.fsdecode, args), folder=folder)
    assert done.returncode == 2, done.stderr + done.stdout
    assert snapshot(folder) == before
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def snapshot(folder: Path) -> dict[Path, object]:
    """Everything in `folder`: what files hold and where links lead."""
    links = {path: os.readlink(path) for path in folder.rglob("*") if path.is_symlink()}
    return links | {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


BAD_NAMES: list[tuple[str | bytes, str]] = [
    ("", "write one"),
    (" ", "write one"),
    (".", "folder that is there already"),
    ("..", "folder that is there already"),
    ("a/b", "put the folder in --bundle-dir"),
    ("a\\b", "put the folder in --bundle-dir"),
    ("/tmp/elsewhere", "put the folder in --bundle-dir"),
    ("a\nb", "line breaks and control characters"),
    ("\x1b[31m", "line breaks and control characters"),
    ("a\u2028b", "line breaks and control characters"),
    (" a", "spaces at its ends"),
    (b"\xff", "bytes that are no UTF-8"),
    ("ä" * 128, "256 bytes"),
]


@pytest.mark.parametrize(("name", "says"), BAD_NAMES)
def test_a_brain_name_that_is_no_plain_name_is_refused(tmp_path: Path, name: str | bytes, says: str) -> None:
    message = refused(tmp_path, b"--brain-name=" + os.fsencode(name))
    assert says in message
    assert len(message) < 2000
    shown = check_on_disk({"brain_name": os.fsdecode(name), "bundle_dir": str(tmp_path)})
    assert list(shown.problems) == ["brain_name"]


@pytest.mark.parametrize("flags", [["--resume"], []])
def test_the_rule_holds_on_resume_too(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "checkpoints" / "step-1").mkdir(parents=True)
    assert "--brain-name is '..'" in refused(tmp_path, "--brain-name=..", *flags)


def test_good_names_stay_good() -> None:
    for name in ("a", "on", "2024-01-01", "#", "ä 🜁", ".hidden", "a..b", "x" * MAX_BYTES, "ä" * 127):
        assert why_not_a_name(name) is None


def test_a_number_behind_the_longest_name_still_makes_a_name(tmp_path: Path) -> None:
    for name in ("x" * MAX_BYTES, "ä" * 127, "a" + "🜁" * 63):
        (tmp_path / name / "checkpoints" / "step-1").mkdir(parents=True)
        assert why_not_a_name(free_name(tmp_path, name)) is None
        assert len(numbered(name, 9999).encode()) <= MAX_BYTES


@pytest.mark.parametrize("flags", [[], ["--resume"]])
@pytest.mark.parametrize("place", ["bundle", "bundle/brain"])
@pytest.mark.parametrize("loops", [False, True])
def test_a_folder_that_is_a_link_to_nowhere(tmp_path: Path, place: str, loops: bool, flags: list[str]) -> None:
    link = tmp_path / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(link if loops else tmp_path / "nowhere")
    message = refused(tmp_path, *flags)
    assert "is a link to nowhere" in message or "symbolic links" in message
    assert "--bundle-dir" in message


@pytest.mark.parametrize("flags", [[], ["--resume"]])
def test_other_places_where_no_brain_can_be(tmp_path: Path, flags: list[str]) -> None:
    (tmp_path / "file").write_text("text")
    assert "is a file" in refused(tmp_path, "--bundle-dir=file", *flags)
    assert "File name too long" in refused(tmp_path, f"--bundle-dir={'x' * 300}", *flags)
    assert "no UTF-8" in refused(tmp_path, b"--bundle-dir=\xff", *flags)
    settings = tmp_path / "run.json"
    settings.write_text(json.dumps({"bundle_dir": "a\0b"}))
    done = run_aios("hrm-hf", "train", f"--config={settings}", *flags, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "Error: --bundle-dir 'a\\x00b' holds a NUL character or bytes that are no UTF-8; rename it.\n"


NO_LOGS = [
    "thoughts without an end",
    "thoughts\nand more of them",
    '{"event": "wedding", "ts": "June"}\n',
    '{"event": "wedding"}',
    '[1, 2]\n{"event": "a", "ts": 1}\n',
    "[" * 100_000 + "\n",
    "\n" + RECORD,
]


@pytest.mark.parametrize("content", NO_LOGS, ids=range(len(NO_LOGS)))
def test_a_file_that_is_no_log_is_not_appended_to(tmp_path: Path, content: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(content)
    assert "is no training log; choose another --log-file" in refused(tmp_path, f"--log-file={notes}")
    link = tmp_path / "link.jsonl"
    link.symlink_to(notes)
    assert "is no training log" in refused(tmp_path, f"--log-file={link}")
    shown = check_on_disk({"log_file": str(notes), "bundle_dir": str(tmp_path)})
    assert list(shown.problems) == ["log_file"]


def test_places_where_no_log_can_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert "is a folder" in refused(tmp_path, "--log-file=folder")
    assert "is a link to nowhere" in refused(tmp_path, "--log-file=link")
    assert "is no regular file" in refused(tmp_path, "--log-file=pipe")
    assert "is no regular file" in refused(tmp_path, "--log-file=/dev/null")
    assert "File name too long" in refused(tmp_path, f"--log-file={'x' * 300}")
    assert "at once" in refused(tmp_path, "--log-file=one", "--stop-file=./one")


def test_a_log_in_the_brains_folder_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bundle" / "brain" / "metrics.jsonl").mkdir(parents=True)
    assert "metrics.jsonl is a folder" in refused(tmp_path)


@pytest.mark.parametrize("content", ["a thought", "STOP it\n", "x" * 70, " " * 70])
def test_a_document_is_no_stop_file(tmp_path: Path, content: str) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text(content)
    assert f"--stop-file {notes} is there already" in refused(tmp_path, f"--stop-file={notes}")


def test_places_where_no_stop_file_can_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for place in ("folder", "pipe"):
        assert "is there already" in refused(tmp_path, f"--stop-file={place}")
    assert "can never appear" in refused(tmp_path, f"--stop-file={'x' * 300}")


def test_a_tilde_means_the_home_folder_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir(parents=True)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AIOS_CACHE_DIR", str(tmp_path / "cache"))
    shutil.copy(bundled_corpus_path(), home / "text.txt")
    settings = ("bundle_dir = '~/brains'", "dataset_file = '~/text.txt'", "log_file = '~/run.jsonl'", "steps = 2")
    (home / "run.toml").write_text("\n".join((*settings, "stop_file = '~/STOP'", "brain_name = 'brain'")))
    small = [flag for flag in TINY if not flag.startswith("--adaptive")]
    done = run_aios("hrm-hf", "train", *small, "--config=~/run.toml", "--lr=1e-3", folder=here)
    assert done.returncode == 0, done.stderr
    assert (home / "run.jsonl").is_file()
    assert (home / "brains" / "brain" / "model.safetensors").is_file()
    for args in (
        ("runs", "--bundle-dir=~/brains"),
        ("generate", "--bundle-dir=~/brains", "--brain-name=brain", "--prompt=the", "--max-new-tokens=2"),
        ("lr-log", "~/run.jsonl"),
        ("plot", "~/run.jsonl", "--output=~/run.png"),
        ("train", "--bundle-dir=~/brains", "--brain-name=brain", "--resume", "--steps=3", "--tensorboard=~/board"),
    ):
        done = run_aios("hrm-hf", *args, folder=here)
        assert done.returncode == 0, done.stderr
    assert (home / "run.png").is_file()
    assert (home / "board").is_dir()
    assert not list(here.iterdir())
