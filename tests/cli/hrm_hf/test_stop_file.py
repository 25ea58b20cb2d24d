"""Whatever stands where the stop file is looked for stops the run in good order, and only a request is removed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from training_process import read_log, start_training, train, train_records, wait_for_step


def _folder(path: Path) -> None:
    path.mkdir()


def _full_folder(path: Path) -> None:
    path.mkdir()
    (path / "inside").touch()


def _no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00STOP")


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


QUICK: list[Callable[[Path], None]] = [_folder, _no_text]
SLOW: list[Callable[[Path], None]] = [_huge, _dangling, os.mkfifo]


def stop_with(make: Callable[[Path], None], folder: Path, *flags: str, path: Path | None = None) -> str:
    """Train until `make` has put something where the stop file is looked for; returns what was printed."""
    process = start_training(folder, "--steps=100000", "--lr=1e-3", "--eval-every=0", *flags)
    wait_for_step(process, folder / "brain", 2)
    make(path or folder / "brain" / "STOP")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert read_log(folder / "brain", "stopped")[-1]["reason"] == "stop_file"
    return out


@pytest.mark.parametrize(
    "make", [*QUICK, *(pytest.param(make, marks=pytest.mark.slow) for make in SLOW)], ids=lambda make: make.__name__
)
def test_anything_called_stop_stops_and_is_taken_away(tmp_path: Path, make: Callable[[Path], None]) -> None:
    out = stop_with(make, tmp_path)
    assert "still there" not in out
    assert not os.path.lexists(tmp_path / "brain" / "STOP")


def test_a_stop_folder_with_something_in_it_is_named_each_time(tmp_path: Path) -> None:
    stop = tmp_path / "brain" / "STOP"
    out = stop_with(_full_folder, tmp_path)
    assert f"{stop} is still there (it cannot be removed: Directory not empty)" in out
    step = max(train_records(tmp_path / "brain"))
    done = train(tmp_path, "--resume")
    assert max(train_records(tmp_path / "brain")) == step + 1
    assert f"{stop} is still there" in done.stdout
    assert (stop / "inside").exists()


def test_a_document_that_appears_where_the_stop_file_is_looked_for_stays(tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    out = stop_with(lambda path: notes.write_text("not yours to remove"), tmp_path, f"--stop-file={notes}", path=notes)
    assert f"{notes} is still there (it is no request to stop, so it was not removed)" in out
    assert notes.read_text() == "not yours to remove"


def test_a_request_that_was_there_before_the_run_is_heeded_once(tmp_path: Path) -> None:
    stop = tmp_path / "halt"
    stop.write_text("STOP\n")
    train(tmp_path, "--steps=6", "--lr=1e-3", f"--stop-file={stop}")
    assert max(train_records(tmp_path / "brain")) == 1
    assert not stop.exists()
    train(tmp_path, "--steps=3", "--resume", f"--stop-file={stop}")
    assert max(train_records(tmp_path / "brain")) == 3
