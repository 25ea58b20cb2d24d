"""Log records that are no points of a curve, as the things a reader wants: adjustments, phases, other events."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]

MAX_STEP = 1 << 53
"""Steps of a log stay below it; beyond, they can no longer be counted in floating point."""
BEGINNINGS = ("run_start", "run_resumed")
"""Records with which a sitting begins."""


@dataclass(frozen=True)
class Adjustment:
    """One change of the learning rate (event `adaptive_lr_adjustment`)."""

    step: int
    """Optimizer step after which it holds."""
    rank: int | None
    """The worker it belongs to; None where there is one only."""
    decision: str
    """`increase`, `decrease`, `spike_decrease`, ..."""
    old_lr: float
    """Learning rate before; NaN where the log has none."""
    new_lr: float
    """Learning rate after; NaN where the log has none."""
    change_pct: float
    """Change in percent of the old rate."""
    reason: str
    """As logged: a word, then the numbers in brackets."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Numbers of the window that decided; None where there is no finite one."""
    groups: Any = None
    """Rates per param group where the log has them, as logged."""
    ts: float = math.nan
    """Unix seconds."""


@dataclass(frozen=True)
class RunEvent:
    """What is worth a line and no decision: an evaluation, a checkpoint, a merge, ..."""

    step: int
    """Optimizer step."""
    rank: int | None
    """The worker it belongs to; None where there is one only."""
    event: str
    """The record's event."""
    text: str
    """One short sentence."""
    ts: float
    """Unix seconds; NaN where the log has none."""


@dataclass(frozen=True)
class Sample:
    """What the model made of a prompt at a step of its training (event `sample`)."""

    step: int
    """Optimizer step."""
    prompt: str
    """The beginning it was given."""
    text: str
    """How it went on."""


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with a purpose of its own: `climb`, `search`, `trial`, `warm-up` or `anneal`."""

    kind: str
    """What is done in it."""
    start: int
    """The step it begins after."""
    end: int
    """Its last step."""


def number(record: Record, key: str) -> float:
    """The number at `key`, NaN where there is none; infinite where it is a whole number too large for a float."""
    value = record.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def loss_of(record: Record) -> float:
    """The loss in a `train` record: the cross-entropy that the scheduler sees, else the whole loss; NaN without."""
    return number(record, "ce" if "ce" in record else "loss")


def lr_of(record: Record) -> float:
    """The learning rate in a `train` record, of several that of the first param group; NaN without."""
    lr = record.get("lr")
    return number({"lr": lr[0]} if isinstance(lr, list) and lr else record, "lr")


def adjustment_from(record: Record, step: int, rank: int | None) -> Adjustment:
    """The adjustment that an `adaptive_lr_adjustment` record tells of; what it lacks is NaN or empty."""
    metrics = record.get("metrics")
    old_lr, new_lr = number(record, "old_lr"), number(record, "new_lr")
    change = number(record, "change_pct")
    if math.isnan(change) and old_lr > 0:
        change = 100 * (new_lr / old_lr - 1)
    return Adjustment(
        step, rank, str(record.get("decision", "unknown")), old_lr, new_lr, change, str(record.get("reason", "")),
        dict(metrics) if isinstance(metrics, dict) else {}, record.get("groups"), number(record, "ts"),
    )  # fmt: skip
