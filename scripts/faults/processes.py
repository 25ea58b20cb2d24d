"""`aios` as a process to be harmed: a real one, or one forked from a server that has imported everything already.

Where the start is not what is tested, the fork server saves its seconds (see `forking`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from faults.forking import Child, Command, ensure_server
from faults.records import HANG, TRACEBACK, Judged

SECONDS = 180.0
"""Longer than any run of the campaign takes; what takes longer hangs."""
MARK = "AIOS_CAMPAIGN_MARK"
"""Environment variable by which the descendants of a process are found, whatever session they are in."""


class Running(Protocol):
    """A process that was started."""

    @property
    def pid(self) -> int | None:
        """Its number."""

    def poll(self) -> int | None:
        """Exit code, None while it runs."""


@dataclass(frozen=True)
class Done:
    """What a process said and how it ended."""

    code: int
    """Exit code; negative: the signal that killed it."""
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything it said, the errors last."""
        return self.out + self.err

    @property
    def end(self) -> str:
        """Its last words, on one line."""
        return " ".join(self.said.split())[-400:]


def wake_shim(**settings: str) -> None:
    """For `prepare`: environment variables that the shim obeys."""
    os.environ.update(settings)


class Fork(Child):
    """A process of the fork server."""

    def family(self) -> list[int]:
        """Itself, while it lives: of forked processes none starts others that are looked for."""
        return [self.pid] if self.poll() is None else []

    def kill_family(self) -> None:
        """SIGKILL it."""
        self.send(signal.SIGKILL)

    def wait(self, seconds: float = SECONDS, kill_it: bool = True) -> Done:
        """Its end; one that takes longer than `seconds` is killed, unless told not to, and judged to hang."""
        code = self.join(seconds)
        if code is None:
            if kill_it:
                self.kill_family()
                self.join(None)
            raise Judged(HANG, f"still running after {seconds:.0f} s: {Done(-9, *self.said('replace')).end}")
        return Done(code, *self.said("replace"))


_starting = threading.Lock()
_number = 0
SHIM = Path(__file__).with_name("shim.c")


def build_shim(library: Path) -> None:
    """Compile the shim that makes writes short and clocks jump."""
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SHIM), "-ldl"], check=True)


def start_server(library: Path) -> None:
    """Start the fork server with the shim in it, asleep; every child inherits it."""
    ensure_server(LD_PRELOAD=str(library))


def fork_aios(
    args: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    prepare: Callable[[], None] | None = None,
    held: bool = False,
) -> Fork:
    """Start `aios ARGS` in a child of the fork server; `prepare` is called in it, `held` stops it before it begins."""
    global _number
    with _starting:
        _number += 1
        says = str(folder / f".says-{os.getpid()}-{_number}")
        return Fork(
            Command(list(args), str(folder), dict(env), f"{says}.out", f"{says}.err", prepare=prepare, held=held)
        )


class Real:
    """`python -m aios ARGS` from nothing, in a session of its own."""

    def __init__(self, args: Sequence[str], folder: Path, env: Mapping[str, str]) -> None:
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        command = [sys.executable, "-m", "aios", *args]
        self._out, self._err = folder / f".out-{self.mark}", folder / f".err-{self.mark}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=folder, env={**env, MARK: self.mark}, start_new_session=True
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.poll()

    def family(self) -> list[int]:
        """Itself and its descendants that live."""
        return [pid for pid in marked(self.mark) if pid != os.getpid()]

    def send(self, number: int) -> None:
        """Send it a signal; one that has ended does not mind."""
        self._process.send_signal(number)

    def kill_family(self) -> None:
        """SIGKILL it and all descendants."""
        for pid in self.family():
            kill(pid)

    def wait(self, seconds: float = SECONDS) -> Done:
        """Its end; one that takes longer than `seconds` is killed with its family and judged to hang."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill_family()
            self._process.wait()
            raise Judged(HANG, f"still running after {seconds:.0f} s: {self._done(-9).end}") from None
        return self._done(code)

    def _done(self, code: int) -> Done:
        return Done(code, self._out.read_text("utf-8", "replace"), self._err.read_text("utf-8", "replace"))


def marked(mark: str) -> list[int]:
    """Living processes whose environment bears `mark`."""
    needle, found = f"{MARK}={mark}\0".encode(), []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                if needle in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:
                continue  # it has just ended
    return found


def kill(pid: int, number: int = signal.SIGKILL) -> bool:
    """Send a signal; whether there was a process to send it to."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def until(process: Running, happened: Callable[[], bool], seconds: float = SECONDS) -> bool:
    """Wait for something; False when the process ended first.

    Raises:
        Judged: a hang, when neither happens within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        if process.poll() is not None:
            return False
        if time.monotonic() > deadline:
            raise Judged(HANG, f"nothing happened within {seconds:.0f} s")
        time.sleep(0.002)
    return True


def check_no_traceback(done: Done) -> None:
    """Judge a process that showed its insides."""
    if "Traceback (most recent call last)" in done.said:
        raise Judged(TRACEBACK, done.end)
