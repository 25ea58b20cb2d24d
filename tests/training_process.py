"""`aios` as a child process, and the log it leaves, for tests through the public surface."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from forked_aios import ForkedAios

Running: TypeAlias = "subprocess.Popen[str] | ForkedAios"

TIMEOUT = 240.0  # seconds; a child that hangs fails its test instead of blocking the suite

TINY = (
    "--hidden-size=32",
    "--num-heads=2",
    "--h-cycles=1",
    "--l-cycles=1",
    "--halt-max-steps=1",
    "--max-seq-len=32",
    "--batch-size=4",
    "--eval-batches=2",
    "--device=cpu",
    "--adaptive-lr-profile=rules",
)
"""Flags of a model that trains 100 steps in a few seconds, by the plain rules unless a test says otherwise."""

THINKING = ("--h-cycles=2", "--l-cycles=2", "--halt-max-steps=2")
"""As the presets have it, for twice as long a step: cycles, and segments among which the model halts."""

AUTO_STEPS = 300
AUTO = ("--adaptive-lr-profile=auto", f"--steps={AUTO_STEPS}", "--lr=1e-5", "--eval-every=0")
"""Flags of a run with room for a climb, asked for a rate far too low."""


def run_aios(
    *args: str, folder: Path | None = None, stdin: str | Path = os.devnull
) -> subprocess.CompletedProcess[str]:
    """`aios ARGS` in `folder`, waited for."""
    process = ForkedAios(args, folder, stdin)
    try:
        out, err = process.communicate(TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_aios_anew(*args: str) -> subprocess.CompletedProcess[str]:
    """`aios ARGS` from nothing, imports and all, waited for."""
    command = [sys.executable, "-m", "aios", *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)


def train_args(folder: Path, *args: str) -> list[str]:
    """Arguments of a tiny training of the brain `folder`/brain; later ones win."""
    return ["hrm-hf", "train", *TINY, f"--bundle-dir={folder}", "--brain-name=brain", *args]


def train(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """A tiny training of the brain `folder`/brain that must succeed."""
    done = run_aios(*train_args(folder, *args))
    assert done.returncode == 0, done.stderr + done.stdout
    return done


def start_training(folder: Path, *args: str) -> ForkedAios:
    """A tiny training of the brain `folder`/brain, left running."""
    return ForkedAios(train_args(folder, *args))


def wait_for(process: Running, happened: Callable[[], bool]) -> None:
    """Wait until `happened()`; fails when the process ends or hangs before."""
    deadline = time.monotonic() + TIMEOUT
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the training never got there"
        time.sleep(0.01)


def wait_for_step(process: Running, brain: Path, step: int) -> None:
    """Wait until the log of `brain` shows that `step` is done."""
    log = brain / "metrics.jsonl"
    mark = '"event": "train", "ts"'
    wait_for(process, lambda: log.exists() and any(s >= step for s in _steps(log, mark)))


def _steps(log: Path, mark: str) -> Iterable[int]:
    lines = log.read_text(encoding="utf-8").split("\n")[:-1]
    return (json.loads(line)["step"] for line in lines if mark in line)


def train_straight_and_killed(folder: Path, *flags: str, at: int, resume: Sequence[str] = ()) -> tuple[Path, Path]:
    """The brains of two runs: one left alone, one killed after step `at` and resumed with the flags `resume`."""
    train(folder / "straight", *flags)
    broken = folder / "broken" / "brain"
    process = start_training(folder / "broken", *flags)
    wait_for_step(process, broken, at)
    process.kill()
    process.communicate()
    train(folder / "broken", "--resume", *resume)
    return folder / "straight" / "brain", broken


def read_log(brain: Path, event: str | None = None) -> list[dict[str, Any]]:
    """The records of a brain's log, all or those of one event; every line must be JSON."""
    lines = (brain / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    return [r for r in records if event is None or r["event"] == event]


def train_records(brain: Path) -> dict[int, dict[str, Any]]:
    """The newest `train` record of each step: what a resumed run repeats replaces what the killed one had logged."""
    return {record["step"]: record for record in read_log(brain, "train")}
