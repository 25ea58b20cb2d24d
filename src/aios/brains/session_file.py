"""What `training.json` tells: the training of a brain that a window started last, so that any window finds it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from aios.brains.process_identity import is_alive
from aios.files import replace_file

SESSION_FILE = "training.json"
"""Beside the brain: the training that a window started last."""


@dataclass
class SessionFile:
    """What `training.json` tells: the training a window started, so that any window finds it again."""

    pid: int
    """Process id of the training; it leads its own process group."""
    birth: str | None
    """See `process_identity.birth_of`."""
    started: float
    """Unix seconds."""
    command: list[str]
    """The command line."""
    log: str
    """The training log."""
    stop_file: str
    """Its appearance asks the training to stop."""
    output: str
    """What the training prints."""
    steps: int
    """Steps the run was asked for."""
    asked: str | None = None
    """What a window asked of it: `pause`, `stop`, `finish`, `kill`."""

    def save(self, brain_dir: Path) -> None:
        """Write it beside the brain; complete or not at all."""
        written = json.dumps(asdict(self), indent=1).encode()
        brain_dir.mkdir(parents=True, exist_ok=True)
        replace_file(brain_dir / SESSION_FILE, lambda file: file.write(written), over_folder=True)

    def check(self) -> None:
        """Check that the values are of their types, as they need not be in a file.

        Raises:
            TypeError: when one is not.
        """
        texts = [self.log, self.stop_file, self.output, *(t for t in (self.birth, self.asked) if t is not None)]
        # A negative number would mean a process group, and all processes.
        whole = type(self.pid) is int and 0 < self.pid < 1 << 31 and type(self.steps) is int
        if not (whole and all(isinstance(text, str) and "\0" not in text for text in texts)):
            raise TypeError(f"{SESSION_FILE} does not describe a training")
        if not (type(self.started) in (int, float) and abs(self.started) <= sys.float_info.max):
            raise TypeError(f"{SESSION_FILE} does not say when the training began")

    @property
    def alive(self) -> bool:
        """Whether the training still runs."""
        return is_alive(self.pid, self.birth)


def read_session(brain_dir: Path) -> SessionFile | None:
    """The training that a window started last, None where there is none or its file is damaged."""
    if not os.path.isfile(brain_dir / SESSION_FILE):  # a pipe would be waited for
        return None
    try:
        session = SessionFile(**json.loads((brain_dir / SESSION_FILE).read_text(encoding="utf-8")))
        session.check()
        return session
    except (OSError, ValueError, TypeError, RecursionError):
        return None  # a damaged note about a process is as good as none: the log still tells the rest
