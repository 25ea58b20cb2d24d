"""Signs of life: an independent worker says through a pipe that its training goes on, and its supervisor listens.

Only the training loop gives signs, so a process that is there but stopped, or stuck in a call, gives none.
"""

from __future__ import annotations

import os
import time

BEAT_SECONDS = 0.2
"""A worker gives no two signs within this time: a step may be far shorter."""
LOOK_SECONDS = 1.0
"""Silence between two looks of the supervisor counts at most so much: it may itself have been busy, or asleep."""
START_SECONDS = 600.0
"""How long a worker may take until its first step, at least: it imports, loads, and compiles."""


class Heartbeat:
    """The worker's end of the pipe."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._last = -BEAT_SECONDS

    def beat(self) -> None:
        """Training has come this far."""
        now = time.monotonic()
        if now - self._last < BEAT_SECONDS:
            return
        self._last = now
        try:
            os.write(self._descriptor, b".")
        except (BlockingIOError, BrokenPipeError):
            return  # enough signs wait to be seen; or nobody is left to see them


class Listener:
    """The supervisor's end: how long a worker has been silent."""

    def __init__(self) -> None:
        self._reader, self.writer = os.pipe()
        """`writer` is the worker's end: for its process, and to be closed here once that runs."""
        os.set_blocking(self._reader, False)
        self._looked = time.monotonic()
        self._silence = 0.0
        self._started = False

    def hung_for(self, patience: float) -> float | None:
        """Seconds of silence where they are more than `patience`, None where they are not; to be asked often."""
        now = time.monotonic()
        self._silence += min(now - self._looked, LOOK_SECONDS)
        self._looked = now
        if self._heard():
            self._silence, self._started = 0.0, True
        allowed = patience if self._started else max(patience, START_SECONDS)
        return self._silence if self._silence > allowed else None

    def begin_again(self) -> None:
        """Count the silence from now on: the worker had nothing to do."""
        self._silence = 0.0

    def close(self) -> None:
        """Stop listening."""
        os.close(self._reader)

    def _heard(self) -> bool:
        try:
            return os.read(self._reader, 65536) != b""
        except BlockingIOError:
            return False
