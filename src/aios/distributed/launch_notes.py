"""What the workers of one launcher leave in its folder: for the launcher, and for each other."""

from __future__ import annotations

import os
import time
from pathlib import Path

from aios.distributed.environment import WorkerPlace

_FOLDER = "AIOS_LAUNCH_FOLDER"
"""Environment variable: where the notes lie. Under torchrun there are none."""
_REFUSAL = "refusal"
_ROLL_CALL_SECONDS = 3.0
_POLL_SECONDS = 0.05


def expect_notes(folder: Path) -> None:
    """In the launcher, before workers start: have them write into `folder`."""
    os.environ[_FOLDER] = str(folder)


def has_own_launcher() -> bool:
    """Whether a launcher of ours, not torchrun, started this worker."""
    return _FOLDER in os.environ


def refuse(exit_code: int) -> None:
    """In a worker that gives up for good: leave `exit_code` for the launcher, and for the workers started after it.

    Starting it again would only fail again.
    """
    folder = _folder()
    if folder is not None:
        (folder / _REFUSAL).write_text(str(exit_code), encoding="utf-8")


def refused() -> int | None:
    """The exit code that a worker of this launcher gave up with; None while none has."""
    folder = _folder()
    if folder is None or not (folder / _REFUSAL).is_file():
        return None
    return int((folder / _REFUSAL).read_text(encoding="utf-8"))


def who_is_missing(place: WorkerPlace) -> list[int]:
    """Answer the roll call of workers that have lost each other; returns who has not answered after some seconds.

    A worker that hangs cannot answer. Empty where there are no notes.
    """
    folder = _folder()
    if folder is None:
        return []
    (folder / _answer(place, place.rank)).touch()
    deadline = time.monotonic() + _ROLL_CALL_SECONDS
    while True:
        missing = [rank for rank in range(place.world_size) if not (folder / _answer(place, rank)).exists()]
        if not missing or time.monotonic() > deadline:
            return missing
        time.sleep(_POLL_SECONDS)


def _answer(place: WorkerPlace, rank: int) -> str:
    return f"here-{place.restarts}-{rank}"


def _folder() -> Path | None:
    return Path(os.environ[_FOLDER]) if _FOLDER in os.environ else None
