"""One run at a time trains a brain: whoever comes second is told who holds it, and touches nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from aios.brains.brain_list import State, read_brain
from aios.errors import UserError
from aios.gui.training_process import TrainingProcess
from aios.runs.brain import list_checkpoints
from aios.runs.lock import holder_of
from aios.settings.config import TrainingConfig
from forked_aios import ForkedAios
from training_process import TINY, read_log, run_aios, start_training, train, train_args, wait_for, wait_for_step
from worker_processes import until_gone

LONG = ("--steps=100000", "--lr=1e-3", "--save-every=2")


def test_second_run_on_a_brain_is_refused_and_names_the_first(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    first = start_training(tmp_path, *LONG)
    try:
        wait_for_step(first, brain, 4)
        first.send_signal(signal.SIGSTOP)  # one that stands still holds it, too
        log = (brain / "metrics.jsonl").read_bytes()
        for args in ((), ("--resume",)):
            second = run_aios(*train_args(tmp_path, *LONG, *args))
            assert second.returncode == 2
            assert f"{brain} is being trained by process {first.pid} on " in second.stderr
            cut = re.search(r"\((aios hrm-hf train .*) \.\.\.\)", second.stderr)  # it is a long command
            assert cut is not None
            assert set(cut[1].split()) <= {"aios", *train_args(tmp_path, *LONG)}
        assert (brain / "metrics.jsonl").read_bytes() == log

        seen = read_brain(brain)
        assert seen is not None
        assert seen.state is State.RUNNING
        config = TrainingConfig(bundle_dir=str(tmp_path), brain_name="brain", resume=True)
        with pytest.raises(UserError, match=f"process {first.pid}"):
            TrainingProcess.start(config)
        assert not (brain / "training.json").exists()
    finally:
        first.kill()
        first.communicate()
    assert holder_of(brain) is None
    done = train(tmp_path, "--resume", f"--steps={int(list_checkpoints(brain)[0].name[5:]) + 2}")
    assert "Training loss" in done.stdout


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[ForkedAios]:
    """A training of `tmp_path`/brain, stopped in the middle, whose folder has been deleted."""
    process = start_training(tmp_path, *LONG, "--save-every=60")
    wait_for_step(process, tmp_path / "brain", 4)
    process.send_signal(signal.SIGSTOP)
    shutil.rmtree(tmp_path / "brain")
    yield process
    process.kill()
    process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
def test_a_folder_deleted_in_mid_run_is_locked_again_with_the_next_save(tmp_path: Path, deleted: ForkedAios) -> None:
    brain = tmp_path / "brain"
    deleted.send_signal(signal.SIGCONT)
    wait_for(deleted, lambda: bool(list_checkpoints(brain)))
    second = run_aios(*train_args(tmp_path, "--resume"))
    assert second.returncode == 2, second.stdout
    assert f"{brain} is being trained by process {deleted.pid} on " in second.stderr
    deleted.terminate()
    _, err = deleted.communicate(timeout=120)
    assert deleted.returncode == 0, err
    assert holder_of(brain) is None
    assert not (brain / ".lock").exists()


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be deleted there")
def test_a_run_whose_place_another_has_taken_writes_nothing_there(tmp_path: Path, deleted: ForkedAios) -> None:
    brain = tmp_path / "brain"
    second = start_training(tmp_path, *LONG)
    try:
        wait_for_step(second, brain, 4)
        deleted.send_signal(signal.SIGCONT)
        _, err = deleted.communicate(timeout=120)
        assert deleted.returncode == 1
        assert f"Error: {brain} had been taken away" in err
        assert f"process {second.pid} on " in err
        wait_for_step(second, brain, read_log(brain, "train")[-1]["step"] + 4)
        steps = [record["step"] for record in read_log(brain, "train")]
        assert steps == list(range(1, len(steps) + 1))
        held = holder_of(brain)
        assert held is not None
        assert held.pid == second.pid
    finally:
        second.kill()
        second.communicate()


def test_dead_holders_child_does_not_hold_the_brain(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from pathlib import Path; from aios.runs.lock import BrainLock\n"
        "with BrainLock(Path(sys.argv[1])):\n"
        "    child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); time.sleep(60)\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "brain")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        held = holder_of(tmp_path / "brain")
        assert held is not None
        assert held.pid == holder.pid
        holder.kill()
        holder.wait()
        assert holder_of(tmp_path / "brain") is None
    finally:
        os.kill(child, signal.SIGKILL)
        holder.stdout.close()


def test_refused_run_leaves_no_trace(tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "train", *TINY, f"--bundle-dir={tmp_path / 'a' / 'b'}", "--dataset-file=none.txt")
    assert done.returncode == 2
    assert not list(tmp_path.iterdir())


def test_damaged_lock_file_hinders_nobody(tmp_path: Path) -> None:
    (tmp_path / "brain").mkdir()
    (tmp_path / "brain" / ".lock").write_bytes(b"[" * 100_000 + b"\xff")
    train(tmp_path, "--steps=3", "--lr=1e-3")
    assert read_log(tmp_path / "brain", "final")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["--ddp", "--parallel-independent"])
def test_several_workers_hold_the_brain_and_are_replaced(tmp_path: Path, way: str) -> None:
    brain = tmp_path / "brain"
    first = start_training(tmp_path, *LONG, way, "--world-size=2", "--merge-every=2")
    try:
        wait_for_step(first, brain, 3)
        wait_for(first, lambda: bool(list_checkpoints(brain)))
        second = run_aios(*train_args(tmp_path, *LONG, way, "--world-size=2", "--resume"))
        assert (second.returncode, f"process {first.pid}" in second.stderr) == (2, True)
        victim = _workers(first.pid)[0]
        seen = len(read_log(brain, "train"))
        os.kill(victim, signal.SIGKILL)
        wait_for(first, lambda: victim not in _workers(first.pid) and len(_workers(first.pid)) == 2)
        wait_for(first, lambda: len(read_log(brain, "train")) > seen + 8)
    finally:
        first.terminate()
        first.communicate(timeout=120)
    assert holder_of(brain) is None


@pytest.mark.slow
def test_brain_stays_closed_while_the_workers_of_a_killed_launcher_live(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    first = start_training(tmp_path, *LONG, "--ddp", "--world-size=2")
    wait_for_step(first, brain, 3)
    workers = _workers(first.pid)
    try:
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        first.kill()
        first.wait()
        second = run_aios(*train_args(tmp_path, "--resume"))
        assert second.returncode == 2
        assert f"Workers of process {first.pid}" in second.stderr
        assert f"still save {brain}; try again in a moment" in second.stderr
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    first.communicate(timeout=120)  # they hold its pipes until they have saved and end
    until_gone(workers)
    assert read_log(brain, "stopped")[-1]["reason"] == "launcher_gone"
    assert holder_of(brain) is None


def _workers(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", "aios"], capture_output=True, text=True, check=False)
    return sorted(int(pid) for pid in found.stdout.split())
