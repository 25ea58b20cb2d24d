"""What a search for the learning rate has seen, as a curve: from a log, or as it was just found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aios.run_view.events import Record, number
from aios.run_view.sentences import curve_of, has_curve
from aios.run_view.timeline import Decision

_SEARCHES = ("adaptive_lr_climb", "adaptive_lr_race", "adaptive_lr_search")
_BEGINNINGS = ("adaptive_lr_init", "adaptive_lr_restored")


@dataclass(frozen=True)
class SearchCurve:
    """Loss against learning rate."""

    how: str
    """`climb`: one point per cycle, the peaks of which rise; `race`: one per short run."""
    points: tuple[tuple[float, float], ...]
    """(learning rate, loss) in the order tried; NaN where training broke."""
    lr: float | None
    """The rate found; None where nothing could be told."""
    edge: float | None
    """Of a climb: the rate at which it ended."""
    bounds: tuple[float, float] | None
    """(lr_min, lr_max) that the run keeps to."""
    reason: str
    """How the rate was reached, in plain words."""

    @classmethod
    def of(cls, record: Record) -> SearchCurve:
        """The curve in what a search logs: `adaptive_lr_climb`, `adaptive_lr_race`, or of earlier versions another."""
        return cls(
            how="race" if record.get("event") == "adaptive_lr_race" else "climb",
            points=tuple(curve_of(record)),
            lr=_rate(record, "lr") or _rate(record, "suggestion"),
            edge=_rate(record, "edge"),
            bounds=_bounds(record),
            reason=str(record.get("reason", "")),
        )


def newest_search(decisions: Sequence[Decision]) -> SearchCurve | None:
    """The curve of the newest search among a run's decisions, None where none has one."""
    record = _newest(decisions)
    if record is None:
        return None
    curve = SearchCurve.of(record)
    return replace(curve, bounds=bounds_of(decisions) or curve.bounds)


def has_search(decisions: Sequence[Decision]) -> bool:
    """Whether `newest_search` has a curve; asked at each redraw, so none is made for it."""
    return _newest(decisions) is not None


def _newest(decisions: Sequence[Decision]) -> Record | None:
    made = (d.record for d in reversed(decisions) if d.record.get("event") in _SEARCHES)
    return next((record for record in made if has_curve(record)), None)


def bounds_of(decisions: Sequence[Decision]) -> tuple[float, float] | None:
    """(lr_min, lr_max) as the run logged them last, None where it did not."""
    for decision in reversed(decisions):
        if decision.record.get("event") in _BEGINNINGS:
            bounds = _bounds(decision.record)
            if bounds is not None:
                return bounds
    return None


def _bounds(record: Record) -> tuple[float, float] | None:
    low, high = _rate(record, "lr_min"), _rate(record, "lr_max")
    return (low, high) if low is not None and high is not None else None


def _rate(record: Record, key: str) -> float | None:
    value = number(record, key)
    return value if math.isfinite(value) and value > 0 else None
