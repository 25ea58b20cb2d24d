"""Ways to ask a running training to save and stop: SIGINT, SIGTERM, a stop file, the death of its launcher."""

from __future__ import annotations

import os
import signal
from types import FrameType, TracebackType

from aios.runs.stop_file import Request, StopFile

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first SIGINT or SIGTERM is remembered; the second ends the process at once.

    The loop asks `reason()` between optimizer steps, so a stop never cuts a step in two. Of several workers one
    watches the stop file, the others have none; `launcher` is the process without which this one must not go on.
    """

    def __init__(self, stop_file: StopFile | None, launcher: int | None = None) -> None:
        self._stop_file = stop_file
        self._launcher = launcher
        self._signal: int | None = None
        self._finishing = False
        self._previous: dict[int, object] = {}

    def reason(self) -> str | None:
        """Why to stop, as it is logged: `signal`, `launcher_gone`, `stop_file`; `Request.FINISH` once when that was
        asked for, else None."""
        if self._signal is not None:
            return "signal"
        if self._launcher is not None and os.getppid() != self._launcher:
            return "launcher_gone"
        asked = self._stop_file.asked() if self._stop_file is not None else None
        if asked is not Request.FINISH:
            return "stop_file" if asked is not None else None
        if self._finishing:
            return None
        self._finishing = self.honoured() is not None  # the run goes on, and finds what could not be removed again
        return Request.FINISH

    def honoured(self) -> str | None:
        """Take the stop file away, so that the next run does not stop on it; a sentence where it has to stay."""
        return self._stop_file.take_away() if self._stop_file is not None else None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None:
            os._exit(128 + number)
        self._signal = number

    def __enter__(self) -> StopRequest:
        self._previous = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
