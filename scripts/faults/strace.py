"""System calls of a process, recorded or broken one at a time by strace."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.forking import Child
from faults.processes import kill

ATTACH_SECONDS = 20.0
_LINE = re.compile(r"^(?:\d+ +)?(\w+)\((.*)\) += (-?\d+|\?)(.*)$")


@dataclass(frozen=True)
class Call:
    """A system call as recorded."""

    name: str
    number: int
    """Of the calls with this name by this thread, counted from 1, as strace's `when=` does."""
    args: str
    """As strace prints them, descriptors with their paths."""
    result: int | None
    """None where the process did not live to see it."""
    injected: bool = False

    def touches(self, folder: Path) -> bool:
        """Whether it names something below `folder`."""
        return f"{folder}/" in self.args or f"{folder}>" in self.args or f'{folder}"' in self.args


def attach(process: Child, folder: Path, options: Sequence[str], trace: Path) -> subprocess.Popen[bytes]:
    """Trace a held process into the file `trace`, then let it go."""
    if process.pid is None:
        raise RuntimeError("the process was not started")
    _until_stopped(process.pid)
    command = ["strace", "-f", "-qq", "-y", "-o", str(trace), *options, "-p", str(process.pid)]
    said = (folder / ".strace").open("wb")
    tracer = subprocess.Popen(command, stdout=said, stderr=said)
    said.close()
    deadline = time.monotonic() + ATTACH_SECONDS
    while _status(process.pid, "TracerPid") in ("0", None):
        if tracer.poll() is not None or time.monotonic() > deadline:
            process_said = (folder / ".strace").read_text("utf-8", "replace")
            kill(process.pid)
            raise RuntimeError(f"strace does not attach: {process_said}")
        time.sleep(0.005)
    time.sleep(0.02)
    kill(process.pid, signal.SIGCONT)
    return tracer


def calls(trace: Path) -> list[Call]:
    """The calls in a trace, in the order of their returns; signals and exits are left out."""
    found, counts, begun = [], dict[tuple[str, str], int](), dict[str, str]()
    for line in trace.read_text("utf-8", "surrogateescape").splitlines():
        pid, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[pid] = rest.removesuffix("<unfinished ...>").strip()
            continue
        if "resumed>" in rest[:60]:
            rest = begun.pop(pid, "") + rest.partition("resumed>")[2].lstrip()
        if (match := _LINE.match(rest.strip())) is not None:
            name, args, result, tail = match.groups()
            counts[pid, name] = counts.get((pid, name), 0) + 1
            value = int(result) if result != "?" else None
            found.append(Call(name, counts[pid, name], args, value, "(INJECTED)" in tail))
    return found


def _until_stopped(pid: int) -> None:
    deadline = time.monotonic() + ATTACH_SECONDS
    while not (_status(pid, "State") or "").startswith("T"):
        if time.monotonic() > deadline:
            raise RuntimeError(f"process {pid} never stopped to be traced")
        time.sleep(0.005)


def _status(pid: int, key: str) -> str | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = [line.partition(":")[2].strip() for line in lines if line.startswith(f"{key}:")]
    return values[0] if values else None
