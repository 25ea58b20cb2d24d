"""Workers that hang instead of dying: stopped, or stuck in native code; and what outlives whom. Real processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from training_process import (
    TIMEOUT,
    read_log,
    run_aios,
    start_training,
    train,
    train_args,
    train_records,
    wait_for,
    wait_for_step,
)
from worker_processes import children, independent_pids, records_of, until_gone, wait_for_worker, worker_pids

TWO = ("--parallel-independent", "--world-size=2", "--lr=4e-3", "--warmup-steps=5", "--eval-every=0")
DDP = ("--ddp", "--world-size=2", "--lr=1e-2")
FREEZES = """
import ctypes, os, threading, time

def freeze():
    while not os.path.exists(os.environ["FREEZE"]):
        time.sleep(0.01)
    ctypes.PyDLL(None).sleep(600)  # with the interpreter's lock: no thread of this process runs on

if os.environ.get("RANK") == "1":
    threading.Thread(target=freeze, daemon=True).start()
"""
"""A `sitecustomize` by which worker 1 hangs in native code once the file $FREEZE is there."""


def stop(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


@pytest.mark.slow
def test_a_stopped_independent_worker_is_named_and_replaced_from_the_last_merge(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=90", "--merge-every=30", "--merge-timeout=2")
    wait_for_worker(process, brain, 1, 35)
    hung = independent_pids(process)[1]
    stop(hung)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    (restarted,) = read_log(brain, "worker_restarted")
    assert restarted["worker"] == 1
    assert restarted["reason"].startswith("hung (no step for ")
    assert "Worker 1 hung (no step for " in out
    assert [r["step"] for r in records_of(brain, 0)] == list(range(1, 91))
    steps = [r["step"] for r in records_of(brain, 1)]
    assert steps[-(90 - restarted["step"]) :] == list(range(restarted["step"] + 1, 91))
    assert [m["step"] for m in read_log(brain, "merge")] == [30, 60, 90]
    until_gone([hung], 0)


@pytest.mark.slow
def test_a_worker_that_hangs_in_native_code_ends_the_run_with_one_sentence_when_no_restart_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    brain, hidden = tmp_path / "brain", tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(FREEZES, encoding="utf-8")
    monkeypatch.setenv("FREEZE", str(tmp_path / "freeze"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden), *sys.path]))
    limits = ("--merge-timeout=2", "--max-restarts=0")
    process = start_training(tmp_path, *TWO, "--steps=100000", "--merge-every=10", *limits)
    wait_for_worker(process, brain, 1, 15)
    pids = list(independent_pids(process).values())
    (tmp_path / "freeze").touch()
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1, err
    assert "Worker 1 hung (no step for " in err
    assert "and the 0 restarts of --max-restarts are used up; everything up to step " in err
    assert "--merge-timeout" in err
    assert err.count("\n") == 1
    until_gone(pids, 0)
    assert not (brain / "merge").exists()


@pytest.mark.slow
def test_a_worker_that_is_slow_but_makes_steps_is_waited_for(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=400", "--merge-every=400", "--merge-timeout=3")
    wait_for_worker(process, brain, 1, 5)
    slow = independent_pids(process)[1]
    until, handed_in = time.monotonic() + TIMEOUT, None
    while handed_in is None or time.monotonic() < handed_in + 8:  # far longer than the timeout
        stop(slow)
        time.sleep(1)
        os.kill(slow, signal.SIGCONT)
        time.sleep(0.1)
        if handed_in is None and list((brain / "merge").glob("*/round-0/rank-0")):
            handed_in = time.monotonic()
        assert time.monotonic() < until
    assert records_of(brain, 1)[-1]["step"] < 400, "not slow enough to be missed"
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    assert not read_log(brain, "worker_restarted")


@pytest.mark.slow
def test_a_stopped_independent_worker_does_not_outlive_its_supervisor(tmp_path: Path) -> None:
    process = start_training(tmp_path, *TWO, "--steps=100000", "--merge-every=50")
    wait_for_worker(process, tmp_path / "brain", 1, 3)
    pids = independent_pids(process)
    stop(pids[1])
    process.kill()
    until_gone(list(pids.values()), 5)  # which fails where one is left
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_workers_of_one_model_save_and_end_with_their_launcher_though_one_is_stopped(
    tmp_path: Path, stopped: int
) -> None:
    launcher = start_training(tmp_path, "--steps=100000", "--save-every=0", *DDP)
    wait_for_step(launcher, tmp_path / "brain", 3)
    pids = worker_pids(launcher)
    stop(pids[stopped])
    launcher.kill()
    until_gone(pids, 10)
    launcher.communicate()
    brain = tmp_path / "brain"
    assert read_log(brain, "stopped")[-1]["reason"] in ("launcher_gone", "other_worker")
    assert read_log(brain, "checkpoint")[-1]["step"] == max(train_records(brain))


@pytest.mark.slow
def test_workers_whose_launcher_dies_while_they_start_do_not_begin_to_train(tmp_path: Path) -> None:
    launcher = start_training(tmp_path, "--steps=100000", *DDP)
    wait_for(launcher, lambda: len(children(launcher.pid)) == 2)
    pids = children(launcher.pid)
    launcher.kill()
    until_gone(pids, 60)
    launcher.communicate()
    assert len(train_records(tmp_path / "brain") if (tmp_path / "brain").exists() else {}) < 3


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "mode", [("--ddp",), ("--zero-stage=zero1",), ("--zero-stage=zero3",)], ids=["ddp", "zero1", "zero3"]
)
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_hung_worker_of_one_model_is_named_and_all_go_on_from_the_newest_checkpoint(
    tmp_path: Path, mode: tuple[str, ...], stopped: int
) -> None:
    brain = tmp_path / "brain"
    args = (*mode, "--world-size=2", "--lr=1e-2", "--steps=60", "--save-every=20", "--eval-every=0")
    launcher = start_training(tmp_path, *args, "--merge-timeout=3")
    wait_for_step(launcher, brain, 25)
    stop(worker_pids(launcher)[stopped])
    output, errors = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, errors + output
    assert f"Error: Worker {1 - stopped} waited 3 s for worker {stopped}, which hangs" in errors
    assert "Traceback" not in errors
    assert read_log(brain, "run_resumed")[-1]["step"] in (20, 40)
    assert read_log(brain, "final")[0]["steps"] == 60
    train(tmp_path / "whole", *args)
    assert {s: r["lr"] for s, r in train_records(brain).items()} == {
        s: r["lr"] for s, r in train_records(tmp_path / "whole" / "brain").items()
    }


@pytest.mark.parametrize("seconds", ["0", "-1", "86401", "1e400", "soon"])
def test_a_timeout_that_is_none_is_refused(tmp_path: Path, seconds: str) -> None:
    done = run_aios(*train_args(tmp_path, *TWO, f"--merge-timeout={seconds}"))
    assert done.returncode == 2
    assert "--merge-timeout" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "brain").exists()
