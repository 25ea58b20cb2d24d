"""How long workers of one model wait for each other, and what they say then: two processes over gloo, one hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

WORKER = """
import sys, time
from datetime import timedelta
from aios.distributed.environment import place_of
from aios.distributed.workers import joined
from aios.errors import LostWorkersError

seconds, goes_on = float(sys.argv[1]), sys.argv[2]
try:
    with joined(place_of()) as workers:
        with workers.waiting_at_most(timedelta(seconds=seconds)):
            for step in range(10**9):
                workers.wait()
                if step == 5:
                    print("ready", flush=True)
                if step == 6 and goes_on == "slow":
                    with workers.waiting_at_most(timedelta(seconds=60)):
                        workers.wait()
                        time.sleep(2.5 * workers.rank)
                        workers.wait()
                if step == 20 and goes_on == "slow":
                    break
except LostWorkersError as error:
    print(error, flush=True)
    sys.exit(1)
"""


def start_two(folder: Path, *args: str) -> list[subprocess.Popen[str]]:
    with closing(socket.socket()) as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    place = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2", "AIOS_LAUNCH_FOLDER": str(folder)}
    return [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *args],
            env={**os.environ, **place, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.mark.parametrize("hung", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_worker_that_hangs_is_named_by_the_one_that_waited(tmp_path: Path, hung: int) -> None:
    workers = start_two(tmp_path, "1", "hangs")
    assert [w.stdout and w.stdout.readline() for w in workers] == ["ready\n"] * 2
    workers[hung].send_signal(signal.SIGSTOP)
    said, _ = workers[1 - hung].communicate(timeout=60)
    workers[hung].kill()
    workers[hung].communicate()
    assert said.startswith(f"Worker {1 - hung} waited 1 s for worker {hung}, which hangs")
    assert "--merge-timeout" in said
    assert said.count("\n") == 1


def test_a_worker_that_dies_is_named_by_the_other(tmp_path: Path) -> None:
    workers = start_two(tmp_path, "60", "dies")
    assert [w.stdout and w.stdout.readline() for w in workers] == ["ready\n"] * 2
    workers[1].kill()
    said, _ = workers[0].communicate(timeout=60)
    workers[1].communicate()
    assert said.startswith("Worker 0 lost worker 1")


def test_where_one_is_known_to_take_long_the_others_wait(tmp_path: Path) -> None:
    workers = start_two(tmp_path, "1", "slow")
    for worker in workers:
        said, _ = worker.communicate(timeout=60)
        assert (worker.returncode, said) == (0, "ready\n")
