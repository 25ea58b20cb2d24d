"""What a supervisor tells its workers: one JSON object a line, through the pipe that is their standard input.

The pipe is also what ties a worker to its supervisor: it closes when the supervisor dies, however it does, and the
worker ends at once. So no worker is ever left behind.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ORDER_STOP = "stop"
"""Finish the step, hand in what there is."""
ORDER_FINISH = "finish"
"""Anneal to zero soon, then end regularly."""
ORDER_MERGED = "merged"
"""Take the merged weights and train the next round."""
ORDER_END = "end"
"""The merge was the last one."""

ORPHANED = 3
"""Exit code of a worker whose supervisor is gone; nobody is left to read it."""


@dataclass(frozen=True)
class NextRound:
    """What to go on from after a merge."""

    weights: Path
    """The merged weights (safetensors)."""
    number: int
    """Of the round."""
    step: int
    """Global optimizer step that the merge stands for."""


class Orders:
    """The worker's end of the pipe; a thread listens, so that orders arrive while the worker trains."""

    def __init__(self) -> None:
        self.stop: str | None = None
        """Why to stop, once that was ordered."""
        self.finish = False
        """Whether to finish now was ordered."""
        self._next: queue.Queue[NextRound | None] = queue.Queue()

    def listen(self, descriptor: int) -> None:
        """Begin to take orders from the file descriptor of the pipe."""
        threading.Thread(target=self._follow, args=(descriptor,), daemon=True).start()

    def next_round(self) -> NextRound | None:
        """Wait until the round handed in has been merged; None: that was the last one."""
        return self._next.get()

    def take(self, order: Mapping[str, Any]) -> None:
        """Note one order."""
        kind = order["order"]
        if kind == ORDER_STOP:
            self.stop = str(order["reason"])
        elif kind == ORDER_FINISH:
            self.finish = True
        elif kind == ORDER_MERGED:
            self._next.put(NextRound(Path(order["weights"]), int(order["number"]), int(order["step"])))
        elif kind == ORDER_END:
            self._next.put(None)

    def _follow(self, descriptor: int) -> None:
        for line in _lines(descriptor):
            self.take(json.loads(line))
        os._exit(ORPHANED)


def _lines(descriptor: int) -> Iterator[bytes]:
    """Whole lines until the pipe closes; read without a buffer object, whose lock a thread would hold at exit."""
    pending = b""
    while block := os.read(descriptor, 65536):
        *lines, pending = (pending + block).split(b"\n")
        yield from lines
