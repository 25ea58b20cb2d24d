"""Work that waits for the disk, done beside the window: results are handed over when the window has a moment."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Background:
    """Runs at most one job of each kind at a time; of several asked for meanwhile only the last is done."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="window")
        self._running: dict[str, tuple[Future[Any], Callable[[Any], None]]] = {}
        self._waiting: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {}

    def submit(self, kind: str, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        """Have `work()` done, then `done(result)` from `deliver`; neither if a newer job comes before it begins."""
        if kind in self._running:
            self._waiting[kind] = (work, done)
        else:
            self._running[kind] = (self._pool.submit(work), done)

    def deliver(self) -> None:
        """Hand over what is done, raise what went wrong, and start what waited."""
        for kind, (future, done) in list(self._running.items()):
            if not future.done():
                continue
            del self._running[kind]
            if kind in self._waiting:
                self.submit(kind, *self._waiting.pop(kind))
            done(future.result())

    def busy(self, kind: str) -> bool:
        """Whether a job of the kind is under way."""
        return kind in self._running

    def close(self) -> None:
        """Drop what waits; what runs is left to end by itself."""
        self._waiting.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)
