"""A worker that gives up for good says so to its launcher: starting it again would only fail again."""

from __future__ import annotations

import os
from pathlib import Path

_FILE = "AIOS_REFUSAL_FILE"
"""Environment variable: where workers leave the exit code they gave up with."""


def expect_refusals(path: Path) -> None:
    """In the launcher, before workers start: have them write to `path`."""
    os.environ[_FILE] = str(path)


def has_own_launcher() -> bool:
    """Whether a launcher of ours, not torchrun, started this worker."""
    return _FILE in os.environ


def refuse(exit_code: int) -> None:
    """In a worker: leave `exit_code` for the launcher, and for the workers started after this one."""
    if _FILE in os.environ:
        Path(os.environ[_FILE]).write_text(str(exit_code), encoding="utf-8")


def refused() -> int | None:
    """The exit code that a worker of this launcher gave up with; None while none has."""
    path = Path(os.environ.get(_FILE, ""))
    return int(path.read_text(encoding="utf-8")) if path.is_file() else None
