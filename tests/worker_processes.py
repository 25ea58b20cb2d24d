"""The workers of a run as processes: found, waited for and missed, for tests that stop and kill them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training_process import TIMEOUT, Running, read_log, wait_for


def records_of(brain: Path, rank: int, event: str = "train") -> list[dict[str, Any]]:
    """The log records of independent worker `rank`."""
    return [r for r in read_log(brain, event) if r.get("rank") == rank]


def independent_pids(supervisor: Running) -> dict[int, int]:
    """The independent workers of a supervisor, pid by rank."""
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(supervisor.pid)], capture_output=True, text=True, check=False
    )
    words = [line.split() for line in listed.stdout.splitlines() if "independent-worker" in line]
    return {int(line[line.index("independent-worker") + 2]): int(line[0]) for line in words}


def wait_for_worker(process: Running, brain: Path, rank: int, step: int) -> None:
    """Wait until independent worker `rank` has logged `step`."""
    mark = f'"rank": {rank}'

    def reached() -> bool:
        if not (brain / "metrics.jsonl").exists():
            return False
        lines = (brain / "metrics.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        records = (json.loads(line) for line in lines if mark in line and '"event": "train"' in line)
        return any(record["step"] >= step for record in records)

    wait_for(process, reached)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def worker_pids(launcher: Running) -> list[int]:
    """The two workers of a launcher, in rank order; waits until both are there."""
    wait_for(launcher, lambda: len(children(launcher.pid)) == 2)
    return sorted(children(launcher.pid))


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def until_gone(pids: Sequence[int], seconds: float = TIMEOUT) -> None:
    """Wait until all the processes have ended; fails when one is left after `seconds`."""
    deadline = time.monotonic() + seconds
    while not all(gone(pid) for pid in pids):
        assert time.monotonic() < deadline, "orphans"
        time.sleep(0.05)
