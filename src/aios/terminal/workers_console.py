"""What the terminal shows of independent workers: their common log, as it grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.run_view.events import lr_of
from aios.run_view.follow import LogFollower
from aios.terminal.console import RunConsole


class WorkersConsole(RunConsole):
    """As `RunConsole`; says which worker a line is about, and the progress line is that of worker 0."""

    def __init__(self, steps: int, log: Path) -> None:
        super().__init__(steps)
        self._speaker = ""
        self._learning_rates: dict[int, float] = {}
        self._follower = LogFollower(log)
        for _ in self._follower.rest():  # earlier sittings
            pass

    def follow(self) -> None:
        """Show what has been logged since the last call."""
        for record in self._follower.poll():
            self.show(record)
        self._speaker = ""

    def show(self, record: Mapping[str, Any]) -> None:
        """Show one log record."""
        rank = record.get("rank")
        self._speaker = f"worker {rank}, " if rank is not None else ""
        if record["event"] != "train":
            super().show(record)
        else:
            self._learning_rates[int(record["rank"])] = lr_of(record)
            if rank == 0:
                self._speaker = ""
                super().show(record)

    def say(self, sentence: str, style: str = "") -> None:
        """Print one sentence above the progress line, beginning with whom it is about."""
        super().say(self._speaker + sentence, style)

    def lines_of(self, name: str, value: str) -> list[tuple[str, str]]:
        """As of one run, with the learning rate of every worker."""
        if name != "Learning rate":
            return super().lines_of(name, value)
        rates = ", ".join(f"{lr:.3g} (worker {rank})" for rank, lr in sorted(self._learning_rates.items()))
        return super().lines_of(name, rates or "nobody trained")
