"""The worker processes of a run, from their supervisor's side: start, speak to, replace, and leave none behind."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from aios.distributed.heartbeat import Listener

END_SECONDS = 60.0
"""How long workers that were told to end may take before they are killed."""


class Crew:
    """One process per worker, each with a pipe to give it orders (see `orders`).

    `start_process(rank, writer)` begins a worker with a pipe as its standard input; through the file descriptor
    `writer` it gives signs of life (see `heartbeat`). On leaving the context those still alive are killed; when this
    process dies, their pipes close and they end themselves.
    """

    def __init__(self, size: int, start_process: Callable[[int, int], subprocess.Popen[bytes]]) -> None:
        self.size = size
        self.restarts = 0
        """Workers started again so far."""
        self._start_process = start_process
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._listeners: dict[int, Listener] = {}
        self._standing: list[dict[str, Any]] = []

    def start(self, rank: int) -> None:
        """Start worker `rank`, for the first time or again; it hears all standing orders."""
        before = self._processes.get(rank)
        if before is not None:
            self.restarts += 1
            _close(before)
            self._listeners[rank].close()
        listener = self._listeners[rank] = Listener()
        try:
            self._processes[rank] = self._start_process(rank, listener.writer)
        finally:
            os.close(listener.writer)
        for order in self._standing:
            self.tell(rank, order)

    def tell(self, rank: int, order: Mapping[str, Any]) -> None:
        """Give one worker an order; one that has just died is not missed here, `lost` will name it."""
        pipe = self._processes[rank].stdin
        assert pipe is not None, "workers are started with a pipe"
        try:
            pipe.write(json.dumps(order).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            return

    def tell_all(self, order: Mapping[str, Any], standing: bool = False) -> None:
        """Give every worker an order; a `standing` one also reaches those that are started later."""
        if standing:
            self._standing.append(dict(order))
        for rank in self._processes:
            self.tell(rank, order)

    def lost(self) -> dict[int, int]:
        """Exit codes (negative: signal) of the workers that are not running, by rank."""
        codes = {rank: process.poll() for rank, process in self._processes.items()}
        return {rank: code for rank, code in codes.items() if code is not None}

    def hung(self, patience: float) -> dict[int, float]:
        """Seconds of silence of the workers that are silent for longer than `patience` seconds; to be asked often."""
        silences = {rank: listener.hung_for(patience) for rank, listener in self._listeners.items()}
        return {rank: silence for rank, silence in silences.items() if silence is not None}

    def begin_again(self) -> None:
        """Count everybody's silence from now on: until now some had nothing to do."""
        for listener in self._listeners.values():
            listener.begin_again()

    def kill(self, rank: int) -> None:
        """End a worker that no longer listens; `lost` will name it."""
        self._processes[rank].kill()

    def wait(self) -> None:
        """Return when all workers have ended; those that take longer than `END_SECONDS` are killed."""
        deadline = time.monotonic() + END_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            _close(process)
        for listener in self._listeners.values():
            listener.close()


def _close(process: subprocess.Popen[bytes]) -> None:
    """Close our end of the pipe to a process that has ended; orders it never read are lost with it."""
    assert process.stdin is not None
    try:
        process.stdin.close()
    except BrokenPipeError:
        return


def how_it_ended(code: int) -> str:
    """`was killed by signal 9`, `failed (exit code 1)`."""
    return f"was killed by signal {-code}" if code < 0 else f"failed (exit code {code})"
