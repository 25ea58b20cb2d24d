"""What the terminal shows of independent workers: their common log, as it grows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.run_view.follow import LogFollower
from aios.terminal.console import RunConsole


class WorkersConsole(RunConsole):
    """As `RunConsole`; says which worker a line is about, and the progress line is that of worker 0."""

    def __init__(self, steps: int, log: Path) -> None:
        super().__init__(steps)
        self._speaker = ""
        self._learning_rates: dict[int, float] = {}
        self._follower = LogFollower(log)
        while not self._follower.at_end:  # earlier sittings
            self._follower.poll()

    def follow(self) -> None:
        """Show what has been logged since the last call."""
        for record in self._follower.poll():
            self.show(record)
        self._speaker = ""

    def show(self, record: Mapping[str, Any]) -> None:
        """Show one log record."""
        rank = record.get("rank")
        self._speaker = f"worker {rank}, " if rank is not None else ""
        if record["event"] == "merge":
            self.say(merge_sentence(record), style="bold")
        elif record["event"] == "worker_restarted":
            self.say(f"step {record['step']}: worker {record['worker']} {record['reason']} and starts again here")
        elif record["event"] != "train":
            super().show(record)
        else:
            self._learning_rates[int(record["rank"])] = _first(record["lr"])
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


def merge_sentence(record: Mapping[str, Any]) -> str:
    """`step 200: merged 3 workers: evaluation loss 2.31, theirs 2.35, 2.36, 2.34`."""
    sentence = f"step {record['step']}: merged {len(record['weights'])} workers"
    if record["eval_loss"] is None:
        return sentence
    theirs = ", ".join("-" if loss is None else f"{loss:.4f}" for loss in record["worker_eval_losses"])
    return f"{sentence}: evaluation loss {record['eval_loss']:.4f}; before the merge theirs were {theirs}"


def _first(lr: float | list[float]) -> float:
    return lr if isinstance(lr, float) else lr[0]
