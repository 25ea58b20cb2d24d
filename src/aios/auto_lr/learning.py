"""Does a run learn at the rate that its climb has found? If not, a word about it, and a lower rate where that may help.

A language model at too high a rate rests at the entropy of single tokens, finite and calm. So a run has to show a part
of the fall that the climb brought. The rate is lowered only if harm ended the climb; else the loss does not rest
because of it. A loss above that of the climb's end says that the weights were harmed: training goes back. Pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aios.auto_lr.climb import comparable
from aios.auto_lr.saved_state import COUNT, FLAG, LOSS, NUMBER, check_state, series
from aios.auto_lr.search import Found

PATIENCE = 0.1
"""Part of the run between two questions if harm had ended the climb."""
CALM_PATIENCE = 0.3
"""The same if the climb ended without harm: later, since a constant rate needs time to beat an annealed loss."""
SOONEST = 32
"""Least steps between two questions: two calm cycles of a climb, because the loss follows the rate late."""
WINDOW = 0.05
"""Part of the run whose median loss answers."""
SHARE = 0.02
"""Least further fall, as a fraction of the climb's fall, on the climb's scale."""
LESS = 3.0
"""The rate is divided by this if the loss has not fallen so far."""
MOST_QUESTIONS = 3
"""Questions that may be answered by a lower rate; after that the watch is over."""


@dataclass(frozen=True)
class Expected:
    """What the loss has to come down to."""

    reference: float
    """The lowest loss of the climb."""
    ceiling: float
    """The highest median loss that counts as learning."""
    broke: bool
    """Whether the climb was ended by harm, so that the rate may be too high."""

    def harmed(self, loss: float) -> bool:
        """Whether a loss that does not count as learning tells of weights harmed since the climb."""
        return self.broke and loss > self.reference

    @classmethod
    def after(cls, found: Found) -> Expected | None:
        """After a climb that saw the loss fall; None after anything else."""
        first = found.start_loss
        if first is None or found.lr is None or not found.clear:
            return None
        lowest = min(found.losses)
        scale = comparable(found.losses)
        ceiling = scale(lowest) - SHARE * (scale(first) - scale(lowest))
        return cls(lowest, math.exp(ceiling) if scale is math.log else ceiling, found.broke)


class LearningWatch:
    """Asks, some time after `step` and again, whether the loss has come below `expected`, until it has."""

    def __init__(self, expected: Expected, step: int, steps: int) -> None:
        self.expected = expected
        self.since = step
        """Optimizer step from which it is counted."""
        self._steps = steps
        self._questions = 0
        self._losses: list[float] = []
        self.over = False
        """Whether there is nothing more to ask."""

    @property
    def in_doubt(self) -> bool:
        """Whether the rate may still turn out to be too high: the current state is not one to come back to."""
        return self.expected.broke and not self.over

    def observe(self, step: int, loss: float) -> float | None:
        """Take the loss of optimizer step `step`; returns the median loss where that says: not learning."""
        if self.over:
            return None
        patience = PATIENCE if self.expected.broke else CALM_PATIENCE
        due = self.since + max(SOONEST, round(patience * self._steps))
        if step > due - max(5, round(WINDOW * self._steps)) and math.isfinite(loss):
            self._losses.append(loss)
        if step < due or not self._losses:
            return None
        median = statistics.median(self._losses)
        self._losses, self._questions = [], self._questions + 1
        if median <= self.expected.ceiling or self._questions > MOST_QUESTIONS:
            self.over = True
            return None
        self.over = not self.expected.broke  # said once; there is nothing to try
        return median

    def go_on(self, step: int) -> None:
        """Count anew from optimizer step `step`: the rate has been lowered."""
        self.since = step

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        own = {"reference": self.expected.reference, "ceiling": self.expected.ceiling}
        own |= {"broke": self.expected.broke, "since": self.since}
        return {**own, "over": self.over, "cuts": self._questions, "losses": list(self._losses)}

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `from_state` takes."""
        check_state("learning watch state", state, _STATE, may_lack=("over",))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], steps: int) -> LearningWatch:
        """Go on from what `state_dict` returned; ValueError for anything else."""
        cls.check_state(state)
        watch = cls(Expected(state["reference"], state["ceiling"], state["broke"]), state["since"], steps)
        watch._questions, watch._losses = state["cuts"], list(state["losses"])
        watch.over = state.get("over", watch._questions > MOST_QUESTIONS)  # older states count it as questions
        return watch


_STATE = {
    "reference": NUMBER,
    "ceiling": NUMBER,
    "broke": FLAG,
    "since": COUNT,
    "cuts": COUNT,  # the number of questions, as older states call it
    "over": FLAG,
    "losses": series(LOSS),
}
