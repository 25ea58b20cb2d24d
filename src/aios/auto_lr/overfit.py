"""Has the evaluation loss turned up for good while the training loss went on falling? Judged by evaluations alone.

Evaluations of one run scatter: the weights wander, and the lowest of many lies below the level by chance alone. The
scatter is read off the evaluations themselves, from their second differences, which a steady fall or rise leaves out
(the pseudo-residuals of Gasser, Sroka and Jennen-Steinmetz, Biometrika 1986). Pure.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aios.auto_lr.robust_window import low_by_chance, scatter
from aios.auto_lr.saved_state import COUNT, FLAG, LOSS, NUMBER, Kind, check_state, optional, row, series

LATEST = 2
"""Evaluations in a row that have to lie above the best: a single one may be a bump that passes."""
LEAST = 5
"""Least evaluations to measure the scatter: they have three second differences."""
MEMORY = 40
"""Most evaluations to measure the scatter: older ones are of another phase of training."""
SURE = 3.0
"""Standard deviations beyond the expected minimum. False alarms on pure noise: 1 % in 10 evaluations, 5 % in 100."""
SHARE = 0.01
"""Part of the evaluation loss's whole fall that a turn has to have lost again: less is not worth ending a run for."""


class Evaluation(NamedTuple):
    """What an evaluation has found."""

    step: int
    """Optimizer step."""
    loss: float
    """Evaluation loss."""
    training: float | None
    """Mean training loss since the evaluation before; None where none is known."""


@dataclass(frozen=True)
class Turn:
    """That the evaluation loss has turned up."""

    best: Evaluation
    """The lowest."""
    now: Evaluation
    """The newest."""
    noise: float
    """How far above the best an evaluation may lie by chance."""

    @property
    def reason(self) -> str:
        """For the log: a word, then the numbers."""
        return (
            f"overfitting (evaluation loss {self.now.loss:.4g} at step {self.now.step}, {self.best.loss:.4g} at step "
            f"{self.best.step}; chance explains {self.noise:.2g})"
        )

    def to_dict(self) -> dict[str, Any]:
        """As an event tells it."""
        best = {"best_step": self.best.step, "best_eval_loss": self.best.loss}
        return {**best, "eval_loss": self.now.loss, "noise": self.noise, "reason": self.reason}


class OverfitWatch:
    """Takes every evaluation of a run, keeps the best, and says once when the loss has turned up since it."""

    def __init__(self) -> None:
        self.best: Evaluation | None = None
        """The lowest loss so far, of equal ones the first."""
        self.turned = False
        """Whether the loss has turned up since the best one."""
        self.finishing = False
        """Whether the run was made to finish because of that."""
        self._first: float | None = None  # evaluation loss
        self._count = 0
        self._newest: list[Evaluation] = []
        self._since = 0  # evaluations since the best, or since `go_on`
        self._training, self._steps = 0.0, 0  # sum of the training losses since the newest evaluation

    def trained(self, loss: float) -> None:
        """Take the training loss of a step."""
        if NUMBER.fits(loss):
            self._training, self._steps = self._training + loss, self._steps + 1

    def observe(self, step: int, loss: float) -> Turn | None:
        """Take the evaluation after optimizer step `step`; returns the turn where this is the one that shows it.

        A loss that is not finite (or beyond 1e30, as good as that) tells nothing.
        """
        if not NUMBER.fits(loss):
            return None
        now = Evaluation(step, loss, self._training / self._steps if self._steps else None)
        self._training, self._steps = 0.0, 0
        self._count += 1
        self._first = loss if self._first is None else self._first
        self._newest = [*self._newest, now][-MEMORY:]
        if self.best is None or loss < self.best.loss:
            self.best, self._since, self.turned = now, 0, False
            return None
        self._since += 1
        noise = self._noise(self._first - self.best.loss)
        if self.turned or self._since < LATEST or noise is None:
            return None
        self.turned = _lies_above(self._newest[-LATEST:], self.best, noise)
        return Turn(self.best, now, noise) if self.turned else None

    def go_on(self) -> None:
        """Ask anew: the evaluations so far do not tell of those to come. The best stays."""
        self.turned, self.finishing, self._since, self._newest = False, False, 0, []

    def _noise(self, fall: float) -> float | None:
        """How far above the best an evaluation may lie by chance; None while too few are known."""
        if len(self._newest) < LEAST:
            return None
        sigma = scatter([e.loss for e in self._newest])
        # The scatter is a median of m differences; its error is about 1 / sqrt(m), and far more for few of them.
        unsure = 1 + 2 / (len(self._newest) - 2)
        return max((SURE + low_by_chance(self._count)) * sigma * unsure, SHARE * fall)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "best": list(self.best) if self.best is not None else None,
            "turned": self.turned,
            "finishing": self.finishing,
            "first": self._first,
            "count": self._count,
            "newest": [list(e) for e in self._newest],
            "since": self._since,
            "training": self._training,
            "steps": self._steps,
        }

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `from_state` takes."""
        check_state("overfitting watch state", state, _STATE)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> OverfitWatch:
        """Go on from what `state_dict` returned; ValueError for anything else."""
        cls.check_state(state)
        watch = cls()
        watch.best = Evaluation(*state["best"]) if state["best"] is not None else None
        watch.turned, watch.finishing, watch._first = state["turned"], state["finishing"], state["first"]
        watch._count, watch._since = state["count"], state["since"]
        watch._newest = [Evaluation(*e) for e in state["newest"]]
        watch._training, watch._steps = state["training"], state["steps"]
        return watch


def _lies_above(latest: Sequence[Evaluation], best: Evaluation, noise: float) -> bool:
    """Whether all of `latest` are above the best by more than `noise`, not on their way back, and training is fine.

    If the training loss is higher than it was then as well, the rate or the data do harm, which is not overfitting.
    """
    if min(e.loss for e in latest) <= best.loss + noise or latest[-1].loss < latest[0].loss:
        return False
    training = [e.training for e in latest if e.training is not None]
    return best.training is None or not training or statistics.fmean(training) < best.training


_EVALUATION = row(COUNT, NUMBER, optional(NUMBER))
_STATE: Mapping[str, Kind] = {
    "best": optional(_EVALUATION),
    "newest": series(_EVALUATION),
    "first": optional(NUMBER),
    "turned": FLAG,
    "finishing": FLAG,
    "count": COUNT,
    "since": COUNT,
    "training": LOSS,
    "steps": COUNT,
}
