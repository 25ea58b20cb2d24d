"""The final anneal: over the last part of a run the learning rate goes linearly to zero.

Linear to zero beats cosine to 10 % (arXiv 2502.15938), and a short linear cooldown after a constant phase matches a
tuned cosine (Hagele et al., arXiv 2405.18392).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from aios.auto_lr.saved_state import COUNT, between, check_state

DEFAULT_FRACTION = 0.3
"""Part of the run that is annealed; measured, see docs/auto_lr.md."""
FINISH_FRACTION = 0.1
"""Part of the planned run that "finish now" takes."""


@dataclass(frozen=True)
class Anneal:
    """A factor on the learning rate, by optimizer step (counted from 1)."""

    start: int
    """The last step at full rate."""
    end: int
    """The last step of the run; its update uses the smallest rate, one more step would have rate 0."""
    scale: float = 1.0
    """Factor at `start`: below 1 where one anneal cuts another short."""

    @classmethod
    def of_run(cls, total_steps: int, fraction: float, since: int = 0) -> Anneal:
        """The last `fraction` of the steps from `since` to `total_steps`; with 0 the rate is never annealed."""
        return cls(total_steps - math.floor(fraction * max(0, total_steps - since)), total_steps)

    def begun(self, step: int) -> bool:
        """Whether `step` is annealed."""
        return step > self.start

    def factor(self, step: int) -> float:
        """The factor for the update of `step`."""
        if not self.begun(step):
            return self.scale
        return self.scale * max(0.0, (self.end + 1 - step) / (self.end + 1 - self.start))

    def finish_now(self, step: int) -> Anneal:
        """The anneal that ends the run soon: from the factor at `step` to zero over a tenth of the run."""
        length = max(1, math.ceil(FINISH_FRACTION * self.end))
        return Anneal(step, min(self.end, step + length), self.factor(step))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"start": self.start, "end": self.end, "scale": self.scale}

    @classmethod
    def from_dict(cls, state: object) -> Anneal:
        """Go on from what `to_dict` returned; ValueError, naming what is wrong, for anything else."""
        saved = check_state("anneal", state, {"start": COUNT, "end": COUNT, "scale": between(0, 1)})
        if saved["start"] > saved["end"]:
            raise ValueError(f"anneal: start = {saved['start']} is not allowed: must be <= end = {saved['end']}")
        return cls(saved["start"], saved["end"], saved["scale"])
