"""Workers as processes: they hear orders, are missed when they die, and never outlive their supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from aios.distributed.supervisor import Crew

WORKER = """
import sys, time
from pathlib import Path
from aios.distributed.heartbeat import Heartbeat
from aios.distributed.orders import Orders
heard = Path(sys.argv[1])
orders = Orders()
orders.listen(sys.stdin.fileno())
while len(sys.argv) > 2 and not orders.finish:
    Heartbeat(int(sys.argv[2])).beat()
    time.sleep(0.05)
while True:
    following = orders.next_round()
    with heard.open("a") as file:
        print(orders.stop, orders.finish, following and following.number, file=file)
    if following is None:
        break
"""
SUPERVISOR = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], stdin=subprocess.PIPE)
print(worker.pid, flush=True)
time.sleep(600)
"""
ROUND = {"order": "merged", "weights": "w", "number": 4, "step": 80}


def wait_until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


@pytest.fixture
def heard(tmp_path: Path) -> Callable[[int], list[str]]:
    def lines(rank: int) -> list[str]:
        path = tmp_path / str(rank)
        return path.read_text().splitlines() if path.exists() else []

    return lines


@pytest.fixture
def start(tmp_path: Path) -> Callable[[int, int], subprocess.Popen[bytes]]:
    def process(rank: int, writer: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", WORKER, str(tmp_path / str(rank)), str(writer)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=(writer,))

    return process


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that has ended but was not waited for does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def test_orders_reach_every_worker_and_the_last_one_ends_them(
    start: Callable[[int, int], subprocess.Popen[bytes]], heard: Callable[[int], list[str]]
) -> None:
    with Crew(2, start) as crew:
        for rank in range(2):
            crew.start(rank)
        crew.tell_all(ROUND)
        crew.tell_all({"order": "stop", "reason": "signal"})
        crew.tell_all({"order": "end"})
        crew.tell_all({"order": "finish"})
        crew.wait()
        assert crew.lost() == {0: 0, 1: 0}
    for rank in range(2):
        first, last = heard(rank)
        assert first.endswith(" 4")
        assert last == "signal True None"


def test_a_killed_worker_is_missed_and_its_successor_hears_the_standing_orders(
    start: Callable[[int, int], subprocess.Popen[bytes]], heard: Callable[[int], list[str]]
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def remembered(rank: int, writer: int) -> subprocess.Popen[bytes]:
        processes.append(start(rank, writer))
        return processes[-1]

    with Crew(1, remembered) as crew:
        crew.start(0)
        crew.tell_all({"order": "finish"}, standing=True)
        assert crew.lost() == {}
        processes[0].kill()
        wait_until(lambda: crew.lost() == {0: -signal.SIGKILL})
        crew.tell_all({"order": "end"})  # nobody hears it, and that is no error
        crew.start(0)
        assert crew.restarts == 1
        crew.tell(0, {"order": "end"})
        crew.wait()
    assert heard(0) == ["None True None"]


def test_a_worker_that_is_silent_for_too_long_is_told_from_those_that_go_on_or_have_not_begun(
    start: Callable[[int, int], subprocess.Popen[bytes]],
) -> None:
    processes: list[subprocess.Popen[bytes]] = []

    def remembered(rank: int, writer: int) -> subprocess.Popen[bytes]:
        processes.append(start(rank, writer))
        return processes[-1]

    with Crew(3, remembered) as crew:
        for rank in range(3):
            crew.start(rank)
        processes[0].send_signal(signal.SIGSTOP)  # before its first sign
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:
            assert crew.hung(1.0) == {}
            time.sleep(0.05)
        processes[1].send_signal(signal.SIGSTOP)
        wait_until(lambda: 1 in crew.hung(1.0))
        assert crew.hung(1.0)[1] > 1.0
        assert crew.hung(1.0).keys() == {1}
        time.sleep(2.5)  # the supervisor itself was busy: that does not count
        assert crew.hung(2.8).keys() == set()
        crew.begin_again()
        assert crew.hung(0.5) == {}
        crew.kill(1)
        wait_until(lambda: crew.lost() == {1: -signal.SIGKILL})


def test_leaving_the_crew_ends_its_workers(start: Callable[[int, int], subprocess.Popen[bytes]]) -> None:
    with Crew(1, start) as crew:
        crew.start(0)
        assert crew.lost() == {}
    assert crew.lost() == {0: -signal.SIGKILL}


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks at processes through /proc")
def test_a_worker_ends_when_its_supervisor_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SUPERVISOR, WORKER, str(tmp_path / "heard")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert is_alive(pid)
        os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
