"""What the person at the terminal sees: the same records that go to the log, as progress and sentences."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from aios.quantities import show_bytes, show_duration
from aios.run_view.events import lr_of
from aios.run_view.history import FINISHES, progress_text
from aios.run_view.sentences import sentence
from aios.run_view.timeline import decision_from
from aios.terminal.lasting_output import LastingOutput

PLAIN_LINE_SECONDS = 5.0
"""Least time between two progress lines where the output is no terminal."""
_SMOOTHING = 0.95


class _Steps(ProgressColumn):
    """Steps done, of how many."""

    def render(self, task: Task) -> Text:
        return Text(f"step {progress_text(int(task.completed), int(task.total or 0))}")


class RunConsole:
    """Progress line on a terminal, plain lines elsewhere; one line per decision, evaluation and checkpoint.

    `quiet` shows nothing: of several workers one speaks. An output that takes no more costs the training nothing.
    """

    def __init__(self, steps: int, quiet: bool = False) -> None:
        self._steps = steps
        output = cast(TextIO, LastingOutput(sys.stdout))
        self._console = Console(file=output, highlight=False, quiet=quiet)
        self._progress = Progress(
            _Steps(),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._step_seconds: float | None = None
        self._last_line = 0.0
        self.decisions: Counter[str] = Counter()
        """Learning-rate adjustments seen, by decision."""

    def say(self, sentence: str, style: str = "") -> None:
        """Print one sentence above the progress line."""
        self._console.print(sentence, style=style, markup=False, soft_wrap=True)

    def tokenizing(self, done: int, total: int) -> None:
        """Progress of tokenising a dataset that is not in the cache yet, in bytes."""
        now = time.monotonic()
        if now - self._last_line >= PLAIN_LINE_SECONDS:
            self._last_line = now
            self.say(f"Tokenising the data: {show_bytes(done)} of {show_bytes(total)}")

    def show(self, record: Mapping[str, Any]) -> None:
        """Show one log record."""
        if record["event"] == "train":
            self._train(record)
            return
        if record["event"] == "adaptive_lr_adjustment":
            self.decisions[record["decision"]] += 1
        elif record["event"] == "adaptive_lr_anneal" and record["reason"] in FINISHES:
            self.ends_at(record["end"])
        if (said := sentence(record)) is not None:
            decided = decision_from(record, record["step"], None) is not None
            self.say(f"step {record['step']}: {said}", style="cyan" if decided else "dim")

    def ends_at(self, step: int) -> None:
        """The run ends at optimizer step `step`, which need not be the one it was asked for."""
        self._steps = step
        if self._task is not None:
            self._progress.update(self._task, total=step)

    def __enter__(self) -> RunConsole:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def summarize(self, rows: Sequence[tuple[str, str]], prompt: str, words: str) -> None:
        """Print how the run ended: (name, value) `rows`, and what the model makes of a prompt."""
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        for name, value in rows:
            for line in self.lines_of(name, value):
                table.add_row(*line)
        self._console.print(table)
        self.say(f"\nPrompt:    {' '.join(prompt.split())}\nContinued: {' '.join(words.split())}")

    def lines_of(self, name: str, value: str) -> list[tuple[str, str]]:
        """A row of the closing table, and what this console has counted that belongs to it."""
        if name != "Learning rate":
            return [(name, value)]
        counted = ", ".join(_counted(count, decision) for decision, count in self.decisions.items())
        return [(name, value), ("LR adjustments", f"{counted or 'none'} in this sitting")]

    def _train(self, record: Mapping[str, Any]) -> None:
        seconds, before = record["step_time_s"], self._step_seconds
        self._step_seconds = seconds if before is None else _SMOOTHING * before + (1 - _SMOOTHING) * seconds
        now = time.monotonic()
        if self._console.is_terminal:
            self._advance(record)
        elif now - self._last_line >= PLAIN_LINE_SECONDS or record["step"] in (1, self._steps):
            self._last_line = now
            self.say(f"step {progress_text(record['step'], self._steps)}  {self._status(record)}")

    def _advance(self, record: Mapping[str, Any]) -> None:
        if self._task is None:
            self._task = self._progress.add_task("", total=self._steps)
        self._progress.update(self._task, completed=record["step"], description=self._status(record))

    def _status(self, record: Mapping[str, Any]) -> str:
        # Remaining time from this sitting's own steps, so that it is right at once after a resume.
        remaining = (self._steps - record["step"]) * (self._step_seconds or 0.0)
        speed = f"{record['tokens_per_sec']:,.0f} tok/s"
        return f"loss {record['ce']:.3f}  lr {lr_of(record):.2e}  {speed}  ETA {show_duration(remaining)}"


def _counted(count: int, decision: str) -> str:
    """`2 increases`."""
    return f"{count} {decision.replace('_', ' ')}{'' if count == 1 else 's'}"
