"""`aios hrm-hf watch`: a training seen from another terminal. The log is the only channel."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from aios.errors import UserError
from aios.file_names import LOG_FILE
from aios.run_view.follow import LogFollower
from aios.run_view.history import RunHistory
from aios.run_view.reading import log_at
from aios.terminal.console import PLAIN_LINE_SECONDS
from aios.terminal.watch_view import progress_line, record_line, view

POLL_SECONDS = 0.5
"""Time between two looks at the log once all of it has been read."""
_ENDED = ("finished", "stopped", "diverged")


class Watched:
    """A log being watched: what it held so far, and each worker's newest training step."""

    def __init__(self, path: Path) -> None:
        self.follower = LogFollower(path)
        self.history = RunHistory()
        self.newest: dict[int | None, dict[str, Any]] = {}
        """The newest `train` record by rank; None where the log names no worker."""

    def poll(self) -> list[dict[str, Any]]:
        """Take what is new in the log and return it.

        Raises:
            UserError: when the file cannot be read, or holds lines none of which is JSON.
        """
        records = self.follower.poll()
        if self.follower.restarted:
            self.history, self.newest = RunHistory(), {}
        if (no_log := self.follower.no_log) is not None:
            raise UserError(no_log)
        self.history.add(records)
        for record in records:
            if record.get("event") == "run_start":
                self.newest = {rank: r for rank, r in self.newest.items() if rank not in (None, record.get("rank"))}
            elif record.get("event") == "train":
                self.newest[record.get("rank")] = record
        return records

    @property
    def over(self) -> bool:
        """Whether the run has ended and all of its log has been read."""
        return self.history.state in _ENDED and self.follower.at_end

    @property
    def trouble(self) -> str | None:
        """A sentence on why there is no news, None when all is well."""
        if self.follower.missing:
            return f"The log {self.follower.path} is gone; waiting for it to come back (Ctrl-C leaves)."
        return None


def watch_log(path: Path, console: Console) -> None:
    """Show the run whose log `path` is (or holds, as a brain's folder) until it ends or Ctrl-C is pressed.

    On a terminal one view is kept up to date; elsewhere there are plain lines. A log that is not there yet is waited
    for.

    Raises:
        UserError: when what is there is no log.
    """
    try:
        watched = Watched(_awaited(path, console))
        if console.is_terminal:
            _watch_live(watched, console)
        else:
            _watch_lines(watched, console)
    except KeyboardInterrupt:
        console.print("Left; the training is not touched by that.")


def _awaited(path: Path, console: Console) -> Path:
    """The log that `path` names, once it is there; says what it waits for."""
    waits = False
    while (log := log_at(path)) is None:
        if not waits:
            named = path / LOG_FILE if path.is_dir() else path
            _say(console, f"There is no log {named} yet; waiting for a training to begin it (Ctrl-C leaves).")
        waits = True
        time.sleep(POLL_SECONDS)
    return log


def _looks(watched: Watched) -> Iterator[list[dict[str, Any]]]:
    """What each look at the log finds, the last of a run that has ended included; waits in between."""
    while True:
        new = watched.poll()
        yield new
        if watched.over and not new:
            return
        if watched.follower.at_end:
            time.sleep(POLL_SECONDS)


def _watch_live(watched: Watched, console: Console) -> None:
    with Live(console=console, refresh_per_second=4) as live:
        for _ in _looks(watched):
            live.update(view(watched.history, watched.newest, time.time(), console.options, watched.trouble))


def _watch_lines(watched: Watched, console: Console) -> None:
    caught_up, shown, gone = False, float("-inf"), False
    for new in _looks(watched):
        if caught_up:  # what had happened before is told by the first progress line
            for line in _lines(new):
                _say(console, line)
        if watched.follower.missing and not gone:
            _say(console, str(watched.trouble))
        gone = watched.follower.missing
        now = time.monotonic()
        first, due = watched.follower.at_end and not caught_up, caught_up and now - shown >= PLAIN_LINE_SECONDS
        if watched.newest and not watched.over and (first or (due and new)):
            shown = now
            _say(console, progress_line(watched.history, watched.newest, time.time()))
        caught_up = caught_up or watched.follower.at_end
    for line in _ending(watched):
        _say(console, line)


def _lines(records: Iterable[dict[str, Any]]) -> Iterator[str]:
    """A line for each record that is worth one."""
    return (line for record in records if (line := record_line(record)) is not None)


def _ending(watched: Watched) -> Iterator[str]:
    history = watched.history
    if watched.newest:
        yield progress_line(history, watched.newest, time.time())
    count = history.adjustment_count
    changes = f"{count} change{'' if count == 1 else 's'} of the learning rate on the way"
    yield f"The run has ended: {history.state}; {changes} (`aios hrm-hf lr-log` tells of every decision)."


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
