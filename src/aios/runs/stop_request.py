"""Ways to ask a running training to save and stop: SIGINT, SIGTERM, a stop file, the death of its launcher."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import FrameType, TracebackType

FINISH = "FINISH"
"""What a stop file may contain to ask for a short anneal and a regular end instead of a stop at once."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """While entered, the first SIGINT or SIGTERM is remembered; the second ends the process at once.

    The loop asks `reason()` between optimizer steps, so a stop never cuts a step in two. Of several workers one
    watches the stop file, the others have none; `launcher` is the process without which this one must not go on.
    """

    def __init__(self, stop_file: Path | None, launcher: int | None = None) -> None:
        self._stop_file = stop_file
        self._launcher = launcher
        self._signal: int | None = None
        self._previous: dict[int, object] = {}

    def reason(self) -> str | None:
        """Why to stop (`signal`, `launcher_gone`, `stop_file`), `FINISH` once when that was asked for, else None."""
        if self._signal is not None:
            return "signal"
        if self._launcher is not None and os.getppid() != self._launcher:
            return "launcher_gone"
        if self._stop_file is None or not self._stop_file.exists():
            return None
        if self._stop_file.read_text(encoding="utf-8").strip() == FINISH:
            self.honoured()  # asked once: the run goes on, to a nearer end
            return FINISH
        return "stop_file"

    def honoured(self) -> None:
        """Take the stop file away, so that the next run does not stop on it."""
        if self._stop_file is not None:
            self._stop_file.unlink(missing_ok=True)

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
