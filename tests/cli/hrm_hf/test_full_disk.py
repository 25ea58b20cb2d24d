"""A disk that is full or fails ends a run with one sentence, and never costs what was saved before."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from aios.runs.checkpoints import newest_valid
from fault_injection import limit_files, train_with_fault
from forked_aios import ForkedAios
from small_disk import SmallDisk
from training_process import TIMEOUT, read_log, run_aios, train, train_args, train_records

FLAGS = ("--lr=1e-3", "--warmup-steps=2", "--eval-every=0", "--steps=12", "--save-every=4")


def test_full_disk_names_place_need_and_what_is_kept(small_disk: SmallDisk) -> None:
    disk = small_disk("5m")  # room for one checkpoint and what is published of it, not for two
    brain = disk / "brain"
    failed = run_aios(*train_args(disk, *FLAGS))
    (error,) = failed.stderr.strip().splitlines()
    assert failed.returncode == 1
    assert error.startswith(f"Error: The disk {disk} is full (No space left on device): about ")
    assert "are needed" in error
    assert "everything up to step 4 is saved: continue with --resume once there is room." in error
    path, skipped = newest_valid(brain)
    assert (path, skipped) == (brain / "checkpoints" / "step-4", [])
    assert [p.name for p in (brain / "checkpoints").iterdir()] == ["step-4"]

    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    train(disk, "--resume")
    assert list(train_records(brain)) == list(range(1, 13))


def test_log_that_takes_no_more_ends_the_run_and_the_rest_is_kept(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    log = brain / "metrics.jsonl"
    failed = train_with_fault(tmp_path, "write", "error=ENOSPC:when=12+", [log], *FLAGS)
    assert failed.returncode == 1
    (error,) = failed.stderr.strip().splitlines()
    assert f"in {brain}" in error
    assert "everything up to step 4 is saved: continue with --resume" in error
    train(tmp_path, "--resume")
    assert list(train_records(brain)) == list(range(1, 13))
    assert read_log(brain, "final")


def test_weights_that_a_limit_cuts_are_the_same_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIOS_CACHE_DIR", str(tmp_path / "cache"))
    limited = ForkedAios(train_args(tmp_path, *FLAGS), prepare=limit_files)
    _, said = limited.communicate(TIMEOUT)
    assert limited.returncode in (1, 2)
    assert len(said.strip().splitlines()) == 1
    assert "File too large" in said
