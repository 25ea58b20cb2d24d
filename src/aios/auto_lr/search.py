"""What a search for the learning rate finds, whichever way it went, and what it needs of a training loop. No torch."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from aios.auto_lr.saved_state import (
    COUNT,
    FLAG,
    LOSS,
    POSITIVE_COUNT,
    RATE,
    TEXT,
    check_state,
    one_of,
    optional,
    row,
    series,
)
from aios.errors import shown

LR_SPAN = 100.0
"""`lr_min` is the found rate divided by this."""
HEADROOM = 5.0
"""`lr_max` is the found rate times this."""
BUDGET = 0.08
"""Largest part of a run's steps that may go into finding rates, all work counted."""
SHORTEST_RUN = 80
"""Steps below which there is no search: it would take most of the run."""

LOST_IN_A_ROW = 2
"""Non-finite losses in a row that are blamed on the rate; a single one may be a bad batch."""

How = Literal["climb", "race"]
"""`climb`: the rate rose through the warm-up until the loss showed the edge; `race`: short runs were compared."""


@dataclass(frozen=True)
class Found:
    """What a search found and what it cost."""

    how: How
    """The way it was found."""
    rates: tuple[float, ...]
    """Those tried, in order: of a climb the peaks of its cycles."""
    losses: tuple[float, ...]
    """What each showed: of a climb the training loss at the end of each cycle; of a race that at the end of each short
    run."""
    lr: float | None
    """The rate to train with; None when nothing could be told, and the rate asked for stays."""
    edge: float | None
    """Of a climb: the rate at which it ended."""
    reason: str
    """How the rate was reached, or why there is none, in plain words."""
    steps: int
    """Optimizer steps' worth of work that trained nothing (a forward pass alone counts a third)."""
    broke: bool = False
    """Of a climb: whether it was ended by harm, a loss that had risen or was no longer finite."""
    clear: bool = True
    """Of a climb: whether the loss fell by more than noise explains; if not, the rate is a guess."""
    steps_per_cycle: int | None = None
    """Of a climb: its pace, which corrects for the run's length: longer cycles find a lower rate."""

    @classmethod
    def nothing(cls, how: How, reason: str, steps: int) -> Found:
        """No rate, and no curve either."""
        return cls(how=how, rates=(), losses=(), lr=None, edge=None, reason=reason, steps=steps)

    @property
    def start_loss(self) -> float | None:
        """Of a climb: the loss that training began with, as the first cycles, at low rates, left it; None: unknown."""
        start = statistics.fmean(self.losses[:3]) if self.how == "climb" and self.losses else math.inf
        return start if math.isfinite(start) else None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(lr_min, lr_max) where a rate was found."""
        return None if self.lr is None else bounds_around(self.lr)

    def to_dict(self) -> dict[str, Any]:
        """As plain values: the keys of the event it is logged as."""
        points = zip(self.rates, self.losses, strict=True)
        return {
            "how": self.how,
            "lr": self.lr,
            "edge": self.edge,
            "curve": [[lr, loss if math.isfinite(loss) else None] for lr, loss in points],
            "search_steps": self.steps,
            "broke": self.broke,
            "clear": self.clear,
            "steps_per_cycle": self.steps_per_cycle,
            "reason": self.reason,
        }  # fmt: skip

    def event(self, step: int) -> dict[str, Any]:
        """For the log, at optimizer step `step`."""
        low, high = self.bounds or (None, None)
        return {"event": f"adaptive_lr_{self.how}", "step": step, **self.to_dict(), "lr_min": low, "lr_max": high}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Found:
        """What `to_dict` made, or what the searches of earlier versions logged; ValueError for anything else."""
        if "suggestion" in record:
            record = _from_range_test(record)
        check_state("what a search found", record, _RECORD, may_lack=("broke", "clear", "steps_per_cycle"))
        points = [(float(lr), math.nan if loss is None else float(loss)) for lr, loss in record["curve"]]
        rates, losses = tuple(lr for lr, _ in points), tuple(loss for _, loss in points)
        how: How = "race" if record["how"] == "race" else "climb"
        return cls(
            how=how,
            rates=rates,
            losses=losses,
            lr=record["lr"],
            edge=record["edge"],
            reason=record["reason"],
            steps=record["search_steps"],
            broke=record.get("broke", False),
            clear=record.get("clear", True),
            steps_per_cycle=record.get("steps_per_cycle"),
        )


def _from_range_test(record: Mapping[str, Any]) -> dict[str, Any]:
    """A search by the range test of earlier versions: the curve had the loss of untouched weights as a third column."""
    steps = record["search_steps"] if "search_steps" in record else record.get("used_steps")
    curve = record.get("curve")
    if not isinstance(curve, list) or not all(isinstance(point, (list, tuple)) and len(point) == 3 for point in curve):
        raise ValueError(f"what a search found: curve = {shown(curve)} is not allowed: must be a list of points")
    kept = {"lr": record["suggestion"], "reason": record.get("reason"), "search_steps": steps}
    return {"how": "climb", "edge": None, "curve": [list(point[:2]) for point in curve], **kept}


_RECORD = {
    "how": one_of("climb", "race"),
    "reason": TEXT,
    "lr": optional(RATE),
    "edge": optional(RATE),
    "search_steps": COUNT,
    "broke": FLAG,
    "clear": FLAG,
    "steps_per_cycle": optional(POSITIVE_COUNT),
    "curve": series(row(RATE, optional(LOSS))),
}


def bounds_around(lr: float) -> tuple[float, float]:
    """(lr_min, lr_max) that go with a rate that was found."""
    return lr / LR_SPAN, lr * HEADROOM


class Trial(Protocol):
    """What a race does to a model; the caller takes a snapshot before and restores it afterwards."""

    def evaluate(self, batch: int) -> float:
        """Training loss on batch number `batch`, weights untouched."""

    def train(self, batch: int, lr: float) -> float:
        """Training loss on batch number `batch`, then one update with `lr`."""


def cost_in_steps(trained: int, evaluated: int) -> int:
    """Optimizer steps' worth of work in `trained` steps and `evaluated` forward passes, rounded up."""
    return trained + math.ceil(evaluated / 3)
