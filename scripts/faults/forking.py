"""`python -m aios ARGS` in processes forked from one that has imported everything already.

A start from nothing costs seconds of imports. Each child is a process of its own all the same, with the arguments,
environment, folder and output files that it is given.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path
from types import TracebackType


@dataclass(frozen=True)
class Command:
    """One start of `aios`."""

    args: Sequence[str]
    folder: str
    """Where it is started."""
    env: Mapping[str, str]
    """Its whole environment."""
    out: str
    """File for what it says."""
    err: str
    """File for what it says in error."""
    stdin: str = os.devnull
    """File, or terminal, that is typed to it."""
    prepare: Callable[[], None] | None = None
    """Called in the child first."""
    held: bool = False
    """Whether it stops before it begins, until somebody continues it."""


def ensure_server(**env: str) -> None:
    """Start the server, unless it runs; it keeps the environment of now (OMP_NUM_THREADS, for one), and `env`."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["faults.imports"])
    # What it cannot import it leaves out in silence: sys.path is not handed on.
    env = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **env}
    before = {name: os.environ.get(name) for name in env}
    os.environ.update(env)
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


class Child:
    """A command, started in a child of the server."""

    def __init__(self, command: Command) -> None:
        ensure_server()
        self._files = (Path(command.out), Path(command.err))
        self._process = multiprocessing.get_context("forkserver").Process(target=_run, args=(command,))
        self._process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None, "it was started"
        return self._process.pid

    def poll(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def join(self, seconds: float | None) -> int | None:
        """As `poll`, after having waited for its end, so long at most (None: for ever)."""
        self._process.join(seconds)
        return self._process.exitcode

    def send(self, number: int) -> None:
        """Send it a signal; one that has ended does not mind."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def said(self, errors: str = "strict") -> tuple[str, str]:
        """What it has said so far, out and err; `errors` as `bytes.decode` takes it."""
        out, err = (file.read_text("utf-8", errors) if file.exists() else "" for file in self._files)
        return out, err


class _AsUncaught:
    """Says an exception that leaves the block as the interpreter would, and ends the process with 1."""

    def __enter__(self) -> _AsUncaught:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and error is not None and not issubclass(kind, SystemExit):
            sys.excepthook(kind, error, trace)
            sys.exit(1)


def _run(command: Command) -> None:
    """Runs in the child."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts behind itself ignore it
    written = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, path, mode in ((0, command.stdin, os.O_RDONLY), (1, command.out, written), (2, command.err, written)):
        descriptor = os.open(path, mode, 0o644)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = os.fdopen(0, closefd=False)
    os.chdir(command.folder)
    os.environ.clear()
    os.environ.update(command.env)
    sys.argv = ["aios", *command.args]
    if command.prepare is not None:
        command.prepare()
    if command.held:
        os.kill(os.getpid(), signal.SIGSTOP)
    with _AsUncaught():
        runpy.run_module("aios", run_name="__main__", alter_sys=True)
