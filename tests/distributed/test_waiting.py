"""How long workers of one model wait for each other, and what they say then: two processes over gloo, one hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from forked import SECONDS, Forked
from waiting_worker import wait_on


def start_two(folder: Path, seconds: float, slow: bool = False) -> list[Forked]:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "AIOS_LAUNCH_FOLDER": str(folder)}
    return [Forked(folder / f"worker-{n}", wait_on, seconds, slow, **place, RANK=str(n)) for n in range(2)]


def until_ready(workers: list[Forked]) -> None:
    deadline = time.monotonic() + SECONDS
    while not all("ready\n" in worker.said for worker in workers):
        assert time.monotonic() < deadline, [worker.errors for worker in workers]
        time.sleep(0.01)


def last_words(worker: Forked) -> str:
    """What it says after `ready`, once it has ended."""
    assert worker.wait() == 1, worker.errors
    return worker.said.partition("ready\n")[2]


@pytest.mark.parametrize("hung", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_that_hangs_is_named_by_the_one_that_waited(tmp_path: Path, hung: int) -> None:
    workers = start_two(tmp_path, 1)
    until_ready(workers)
    os.kill(workers[hung].pid, signal.SIGSTOP)
    said = last_words(workers[1 - hung])
    os.kill(workers[hung].pid, signal.SIGKILL)
    workers[hung].wait()
    assert said.startswith(f"Worker {1 - hung} waited 1 s for worker {hung}, which hangs")
    assert "--merge-timeout" in said
    assert said.count("\n") == 1


def test_a_worker_that_dies_is_named_by_the_other(tmp_path: Path) -> None:
    workers = start_two(tmp_path, 60)
    until_ready(workers)
    os.kill(workers[1].pid, signal.SIGKILL)
    said = last_words(workers[0])
    workers[1].wait()
    assert said.startswith("Worker 0 lost worker 1")


def test_where_one_is_known_to_take_long_the_others_wait(tmp_path: Path) -> None:
    for worker in start_two(tmp_path, 1, slow=True):
        assert (worker.wait(), worker.said) == (0, "ready\n")
