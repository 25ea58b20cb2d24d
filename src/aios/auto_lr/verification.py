"""Does the rate that the search found hold? Judged once, just after the warm-up; if not, back to the start, lower."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from aios.auto_lr.search import RangeTestResult

MAX_RESTARTS = 3
"""After so many the rate stays what it is: the rules and the ladder take over."""
SHARE_OF_RAMP = 0.25
"""Training from scratch has to reach at least this part of the fall that the ramp reached in fewer steps."""
TOLERATED_RISE = 0.05
"""Where the ramp brought no clear fall, the loss may stand this part of it above where it began ..."""
TOLERATED_SIGMAS = 3.0
"""... and this many standard deviations from batch to batch."""


@dataclass(frozen=True)
class Expectation:
    """What the loss of the first steps after the warm-up must not exceed."""

    ceiling: float
    """Nats; above it the search's rate did not hold."""

    @classmethod
    def from_search(cls, found: RangeTestResult, clear_drop: float) -> Expectation:
        """From the curve of a search that gave a suggestion."""
        references = [point.reference for point in found.points]
        level, noise = statistics.fmean(references), statistics.pstdev(references)
        best = min(point.change for point in found.points)
        if best < -clear_drop * abs(level):
            return cls(level + SHARE_OF_RAMP * best)
        return cls(level + TOLERATED_RISE * abs(level) + TOLERATED_SIGMAS * noise)

    def met(self, losses: list[float]) -> bool:
        """Whether `losses`, of the steps after the warm-up, are low enough: most of them, so that neither a bad batch
        nor its NaN is held against the rate."""
        return statistics.median(loss if math.isfinite(loss) else math.inf for loss in losses) <= self.ceiling
