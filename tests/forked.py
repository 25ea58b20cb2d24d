"""A function in a process that has its imports behind it, as `forked_aios` has `aios` in one."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

from faults.forking import ensure_server

SECONDS = 240.0
"""What one may take."""


class Forked:
    """`work(*args)` of a module that can be imported, with `env` besides; what it says goes to files in `folder`."""

    def __init__(self, folder: Path, work: Callable[..., None], *args: object, **env: str) -> None:
        ensure_server()
        folder.mkdir(parents=True)
        self._says = (folder / "out.txt", folder / "err.txt")
        for path in self._says:
            path.touch()
        self.process = multiprocessing.get_context("forkserver").Process(
            target=_run, args=(self._says, work, args, {**os.environ, **env})
        )
        self.process.start()

    @property
    def pid(self) -> int:
        """Its number."""
        assert self.process.pid is not None, "it was started"
        return self.process.pid

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._says[0].read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        """What it has said in error."""
        return self._says[1].read_text(encoding="utf-8")

    def wait(self) -> int | None:
        """Its exit code, once it has ended, negative for a signal; None where it does not end."""
        self.process.join(SECONDS)
        return self.process.exitcode


def _run(says: tuple[Path, ...], work: Callable[..., None], args: tuple[object, ...], env: dict[str, str]) -> None:
    for number, path in enumerate(says, start=1):
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(env)
    work(*args)
