"""A training log as it is followed: new records by offset, digested into a bounded history. No Tk here."""

from __future__ import annotations

import time
from pathlib import Path

from aios.errors import UserError
from aios.run_view.history import RunHistory
from aios.run_view.reading import FollowedRun

SLICE_BYTES = 128 * 1024
"""Read and digested at a time: some ten milliseconds."""


class RunFeed:
    """One run in view."""

    def __init__(self, label: str, log: Path) -> None:
        self.label = label
        self.log = log
        self.caught_up = False
        """Whether everything in the log has been taken in."""
        self.problem: str | None = None
        """What is wrong with the log, one sentence."""
        self._run = FollowedRun(log)
        self._seen = False

    @property
    def history(self) -> RunHistory:
        """What the log holds; another object once the log was replaced."""
        return self._run.history

    def moved(self, old: Path, new: Path | None) -> RunFeed | None:
        """This run once the brain's folder `old` (absolute) is `new`, None: once it is deleted."""
        log = self.log.absolute()
        if old == new or not log.is_relative_to(old):
            return self
        return RunFeed(new.name, new / log.relative_to(old)) if new is not None else None

    def poll(self, seconds: float) -> bool:
        """Take in what is new, slice by slice, for about `seconds`; whether there is anything to redraw for."""
        deadline = time.perf_counter() + seconds
        problem = self.problem
        changed = self._take_slice()
        while not self.caught_up and time.perf_counter() < deadline:
            changed = self._take_slice() or changed
        return changed or self.problem != problem

    def _take_slice(self) -> bool:
        """Whether there were new records, or the log began anew."""
        follower = self._run.follower
        try:
            new = self._run.refresh(SLICE_BYTES)
        except UserError as error:
            self.problem, self.caught_up = str(error), True
            return False
        self._seen = self._seen or not follower.missing
        self.caught_up = follower.at_end
        if follower.missing and self._seen:
            self.problem = f"The log {self.log} is gone; what had been read of it stays on show."
        else:
            self.problem = follower.no_log
        return bool(new) or follower.restarted
