"""Several workers that share one model: real processes, gloo, real kills."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from aios.runs.checkpoints import find_damage, newest_valid
from training_process import (
    THINKING,
    TIMEOUT,
    Running,
    read_log,
    run_aios,
    start_training,
    train,
    train_args,
    train_records,
    wait_for,
    wait_for_step,
)
from worker_processes import until_gone, worker_pids

DDP = ("--ddp", "--world-size=2")
WATCHED = Path(__file__).with_name("watched_worker.py")
NOBODY = "-1"


def torchrun(folder: Path, poisoned: str, steps: str, *args: str) -> list[list[list[float]]]:
    """A training by two watched workers, one of them perhaps poisoned; the learning rates of each."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command += [str(WATCHED), str(folder), poisoned, steps, *train_args(folder, "--ddp", *args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
    return port


def relative_difference(a: dict[int, dict[str, Any]], b: dict[int, dict[str, Any]], key: str) -> float:
    assert a.keys() == b.keys()
    return max(abs(a[step][key] - b[step][key]) / abs(a[step][key]) for step in a)


def test_two_workers_equal_one_process_with_the_doubled_batch_until_a_signal_stops_them(tmp_path: Path) -> None:
    flags = (*THINKING, "--steps=5000", "--lr=1e-2", "--warmup-steps=5", "--eval-every=20")
    single, brain = tmp_path / "one" / "brain", tmp_path / "two" / "brain"
    alone = start_training(single.parent, *flags, "--batch-size=8")
    wait_for_step(alone, single, 40)
    alone.terminate()
    said, _ = alone.communicate(TIMEOUT)
    launcher = start_training(brain.parent, *flags, *DDP)
    wait_for_step(launcher, brain, 40)
    said_of_two = assert_stopped(launcher, brain, launcher.terminate, "signal")
    assert foretold_memory(said_of_two) == pytest.approx(2 * foretold_memory(said), rel=0.05)  # both workers'
    one, two = ({s: r for s, r in train_records(path).items() if s <= 40} for path in (single, brain))
    assert len(one) == 40
    assert relative_difference(one, two, "loss") < 1e-5
    assert [r["lr"] for r in one.values()] == [r["lr"] for r in two.values()]
    assert read_log(brain, "run_start")[0]["world_size"] == 2
    mine, theirs = (read_log(path, "eval")[0] for path in (single, brain))
    assert (mine["step"], mine["tokens"] % theirs["tokens"]) == (theirs["step"], 0)


def assert_stopped(launcher: Running, brain: Path, ask: Callable[[], object], reason: str) -> str:
    """Ask two workers in training to stop; both do, in good order. Returns what was said."""
    pids = worker_pids(launcher)
    ask()
    said, errors = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, errors
    assert "Warning" not in errors
    until_gone(pids)
    assert read_log(brain, "stopped")[0]["reason"] == reason
    assert read_log(brain, "checkpoint")[-1]["step"] == max(train_records(brain))
    return said


def foretold_memory(said: str) -> int:
    """Megabytes, as a run says before its first step."""
    found = re.search(r"about (\d+) MB of memory", said)
    assert found is not None, said
    return int(found[1])


@pytest.mark.slow
def test_accumulated_gradients_are_exchanged_once_and_right(tmp_path: Path) -> None:
    train(tmp_path / "one", "--steps=20", "--lr=1e-2", "--batch-size=8", "--gradient-accumulation-steps=2")
    train(tmp_path / "two", "--steps=20", "--lr=1e-2", "--gradient-accumulation-steps=2", *DDP)
    one, two = (train_records(tmp_path / name / "brain") for name in ("one", "two"))
    assert relative_difference(one, two, "loss") < 1e-5
    assert relative_difference(one, two, "grad_norm") < 1e-3


def test_workers_adjust_together_and_brake_for_a_nan_of_one(tmp_path: Path) -> None:
    rates = torchrun(tmp_path, "1", "60,61", "--steps=100", "--lr=1e-2")
    brain = tmp_path / "brain"
    assert len(rates[0]) == 100
    assert rates[0] == rates[1]
    adjustments = read_log(brain, "adaptive_lr_adjustment")
    assert len(adjustments) >= 3
    brakes = [a for a in adjustments if a["reason"] == "non_finite_loss"]
    assert [a["step"] for a in brakes] == [60]
    assert len({tuple(r) for r in rates[0]}) > 3
    records = train_records(brain)
    assert [step for step, r in records.items() if r["loss"] is None] == [60, 61]
    assert records[100]["loss"] < records[1]["loss"]


@pytest.mark.slow
@pytest.mark.parametrize("lr", ["1e-5", "1e-1"])
def test_auto_takes_every_decision_together(tmp_path: Path, lr: str) -> None:
    args = ("--adaptive-lr-profile=auto", "--steps=320", f"--lr={lr}", "--eval-every=0", "--save-every=0")
    rates = torchrun(tmp_path, "1", ",".join(map(str, range(180, 190))), *args)
    brain = tmp_path / "brain"
    assert rates[0] == rates[1]
    (found,) = read_log(brain, "adaptive_lr_climb")
    assert found["lr"] is not None
    assert read_log(brain, "adaptive_lr_trouble")
    assert train_records(brain)[320]["loss"] < train_records(brain)[min(train_records(brain))]["loss"]
    other = tmp_path / "one"
    train(other, *args, "--batch-size=8", f"--lr={lr}")
    assert read_log(other / "brain", "adaptive_lr_climb")[0]["lr"] == pytest.approx(found["lr"], rel=0.2)


@pytest.mark.slow
def test_a_lost_worker_is_replaced_and_the_lr_goes_on(tmp_path: Path) -> None:
    launcher = start_training(tmp_path, "--steps=120", "--lr=1e-2", "--save-every=20", *DDP)
    brain = tmp_path / "brain"
    wait_for_step(launcher, brain, 50)
    os.kill(worker_pids(launcher)[1], signal.SIGKILL)
    output, errors = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, errors + output
    (resumed,) = read_log(brain, "run_resumed")
    assert resumed["step"] >= 40
    assert read_log(brain, "adaptive_lr_restored")
    assert read_log(brain, "final")[0]["steps"] == 120
    train(tmp_path / "whole", "--steps=120", "--lr=1e-2", "--save-every=20", *DDP)
    assert {s: r["lr"] for s, r in train_records(brain).items()} == {
        s: r["lr"] for s, r in train_records(tmp_path / "whole" / "brain").items()
    }


def start_unheard(folder: Path, *args: str) -> subprocess.Popen[str]:
    """A training whose output, long after many restarts, goes to a file: a pipe that nobody reads would block it."""
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "aios", *train_args(folder, *args)], stdout=output, stderr=output, text=True
        )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kills_at_twenty_random_moments_lose_nothing_but_time(tmp_path: Path) -> None:
    """Of a worker, of the launcher, in the middle of a checkpoint: the run ends as if nothing had happened."""
    args = (*THINKING, "--lr=1e-2", "--save-every=5", "--keep-checkpoints=2", "--max-restarts=100", *DDP)
    moments, brain = random.Random(0), tmp_path / "brain"
    launcher = start_unheard(tmp_path, "--steps=400", *args)
    for kill in range(20):
        reached = max(train_records(brain), default=0) if (brain / "metrics.jsonl").exists() else 0
        wait_for_step(launcher, brain, reached + moments.randint(1, 12))
        time.sleep(moments.random() / 5)
        victim = ("worker", "launcher", "checkpoint")[kill % 3]
        pids = worker_pids(launcher)
        if victim == "checkpoint":
            wait_for(launcher, lambda: any((brain / "checkpoints").glob(".partial-*")))
        os.kill(launcher.pid if victim == "launcher" else pids[moments.randint(0, 1)], signal.SIGKILL)
        until_gone(pids)
        if victim == "launcher":
            launcher.wait()
            launcher = start_unheard(tmp_path, "--steps=400", "--resume", *args)
        elif moments.random() < 0.5:
            assert find_damage(newest_valid(brain)[0]) is None
    assert launcher.wait(timeout=600) == 0, (tmp_path / "output.txt").read_text()
    train(tmp_path / "whole", "--steps=400", *args)
    for key in ("lr", "loss"):
        disturbed, whole = (train_records(folder / "brain") for folder in (tmp_path, tmp_path / "whole"))
        assert {s: r[key] for s, r in disturbed.items()} == {s: r[key] for s, r in whole.items()}


@pytest.mark.slow
def test_workers_do_not_outlive_their_launcher(tmp_path: Path) -> None:
    launcher = start_training(tmp_path, "--steps=5000", *DDP)
    wait_for_step(launcher, tmp_path / "brain", 3)
    pids = worker_pids(launcher)
    launcher.kill()
    until_gone(pids)
    launcher.communicate()
    assert read_log(tmp_path / "brain", "stopped")[-1]["reason"] in ("launcher_gone", "other_worker")
    last = max(train_records(tmp_path / "brain"))
    train(tmp_path, "--resume", f"--steps={last + 5}", *DDP)
    assert max(train_records(tmp_path / "brain")) == last + 5


@pytest.mark.slow
def test_a_stop_file_reaches_all_workers(tmp_path: Path) -> None:
    launcher = start_training(tmp_path, "--steps=5000", *DDP)
    brain = tmp_path / "brain"
    wait_for_step(launcher, brain, 3)
    assert_stopped(launcher, brain, (brain / "STOP").touch, "stop_file")


@pytest.mark.slow
def test_finish_anneals_on_all_workers(tmp_path: Path) -> None:
    launcher = start_training(tmp_path, "--steps=400", "--adaptive-lr-profile=auto", "--lr=1e-3", *DDP)
    brain = tmp_path / "brain"
    wait_for_step(launcher, brain, 40)
    (brain / "STOP").write_text("FINISH")
    output, errors = launcher.communicate(timeout=TIMEOUT)
    assert launcher.returncode == 0, errors + output
    assert read_log(brain, "adaptive_lr_anneal")[-1]["reason"] == "finish_now"
    assert read_log(brain, "final")[0]["steps"] < 400


@pytest.mark.slow
@pytest.mark.parametrize(
    "workers", [pytest.param(("--ddp", "--world-size=3"), marks=pytest.mark.slow), ("--no-ddp",)], ids=["more", "one"]
)
def test_resume_with_another_number_of_workers_keeps_the_lr(tmp_path: Path, workers: tuple[str, ...]) -> None:
    train(tmp_path, "--steps=60", "--lr=1e-2", *DDP)
    before = read_log(tmp_path / "brain", "adaptive_lr_summary")[-1]["final_lr"]
    train(tmp_path, "--resume", "--steps=65", *workers)
    (restored,) = read_log(tmp_path / "brain", "adaptive_lr_restored")
    assert restored["current_lr"] == before
    assert train_records(tmp_path / "brain")[61]["lr"] == before


@pytest.mark.slow
def test_two_machines_meet(tmp_path: Path) -> None:
    port = free_port()
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    launch += ["--rdzv-backend=c10d", f"--rdzv-endpoint=localhost:{port}", "--rdzv-id=7", "--local-addr=localhost"]
    command = [*launch, "-m", "aios", *train_args(tmp_path, "--steps=20", "--ddp")]
    agents = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for agent in agents:
        output, errors = agent.communicate(timeout=TIMEOUT)
        assert agent.returncode == 0, errors + output
    assert read_log(tmp_path / "brain", "run_start")[0]["world_size"] == 2
    assert max(train_records(tmp_path / "brain")) == 20


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--ddp"], "give --world-size"),
        (["--ddp", "--world-size=0"], "--world-size is 0"),
        (["--world-size=2"], "add --ddp"),
        (["--ddp", "--parallel-independent", "--world-size=2"], "exclude each other"),
        (["--cuda-ids=0,1"], "add --ddp"),
    ],
)
def test_flags_that_contradict_each_other(tmp_path: Path, args: list[str], sentence: str) -> None:
    done = run_aios(*train_args(tmp_path, *args))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_port_that_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("localhost", 0))
        taken.listen()
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        done = run_aios(*train_args(tmp_path, *DDP))
    assert done.returncode == 2
    assert "(MASTER_PORT) is in use" in done.stderr


@pytest.mark.parametrize("asked", ["abc", "99999", "-1", "9" * 5000])
def test_what_is_no_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("MASTER_PORT", asked)
    done = run_aios(*train_args(tmp_path, *DDP))
    assert done.returncode == 2
    assert "MASTER_PORT is '" in done.stderr
    assert "it must be a port, 1 to 65535" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_workers_that_refuse_are_not_started_again(tmp_path: Path) -> None:
    train(tmp_path, "--steps=5")
    weights = tmp_path / "brain" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])  # only workers look at the weights
    done = run_aios(*train_args(tmp_path, "--brain-name=other", f"--student-init={tmp_path / 'brain'}", *DDP))
    assert done.returncode == 2
    assert "model.safetensors" in done.stderr
    assert done.stderr.count("[worker 0] Error:") == 1
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_torchrun_without_ddp_is_refused(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command = [*launch, "-m", "aios", *train_args(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode != 0
    assert "add --ddp" in done.stderr
    assert not (tmp_path / "brain" / "metrics.jsonl").exists()
