"""How fast a run goes, and so how long it still takes: right after pauses and resumes too."""

from __future__ import annotations

import math
import statistics
from collections import deque

RECENT_STEPS = 200
"""Records behind the median step time."""


class Pace:
    """Step times of one worker, from the timestamps of its `train` records.

    The median of recent steps is what a pause, an evaluation or a checkpoint cannot move. Time between two sittings
    is no step: `resumed` forgets the last one's end and its speed.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RECENT_STEPS)
        self._step, self._ts = 0, math.nan

    @property
    def step(self) -> int:
        """The newest step seen."""
        return self._step

    @property
    def ts(self) -> float:
        """When it was written, unix seconds; NaN where unknown."""
        return self._ts

    def seen(self, step: int, ts: float, step_seconds: float) -> None:
        """Take a `train` record: its step, `ts` and `step_time_s` (either may be NaN)."""
        elapsed = (ts - self._ts) / (step - self._step) if step > self._step else math.nan
        if not 0 <= elapsed < math.inf:
            elapsed = step_seconds  # the first of a sitting, or a log without timestamps
        if 0 <= elapsed < math.inf:
            self._seconds.append(elapsed)
        self._step, self._ts = step, ts

    def resumed(self, step: int) -> None:
        """A new sitting goes on from `step`."""
        self._seconds.clear()
        self._step, self._ts = step, math.nan

    @property
    def step_seconds(self) -> float | None:
        """Median seconds per step; None before the first one."""
        return statistics.median(self._seconds) if self._seconds else None

    def eta_seconds(self, end: int, now: float) -> float | None:
        """Seconds from `now` (unix) until step `end`; None before the first step of the sitting."""
        each = self.step_seconds
        if each is None:
            return None
        waited = now - self._ts
        under_way = min(max(waited, 0.0), each) if math.isfinite(waited) else 0.0
        return max(0.0, (end - self._step) * each - under_way)
