"""What the controller tells: one dict per event, with `event` and `step`; the keys are the contract's.

Events that more than one module tells are made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Event = dict[str, Any]
LogFn = Callable[[Event], object]
"""Takes one event."""


def ignore(record: Event) -> None:
    """For a controller that nobody listens to."""


def not_learning(
    step: int,
    *,
    since: int,
    loss: float,
    reference: float,
    lr: float,
    cause: str,
    reason: str,
    back: bool | None = None,
    lowered: bool | None = None,
) -> Event:
    """The loss has not come below `reference` since step `since`; `lr` is the rate from here on.

    `back`: whether training went back to the last good state, `lowered`: whether the rate was lowered; None where
    nobody would have done so.
    """
    event = {"event": "not_learning", "step": step, "since": since, "loss": loss, "reference": reference, "lr": lr}
    done = {name: value for name, value in (("back", back), ("lowered", lowered)) if value is not None}
    return {**event, "cause": cause, **done, "reason": reason}


def trouble(step: int, rung: str, reason: str, numbers: Mapping[str, float]) -> Event:
    """A rung of the ladder was taken, or (`none`) something is worth a remark."""
    numbers = {name: float(value) for name, value in numbers.items()}
    return {"event": "adaptive_lr_trouble", "step": step, "rung": rung, "reason": reason, "numbers": numbers}


def foreign_lr(step: int, found: float, own: float, group: int | None = None, climbing: bool = False) -> Event:
    """Somebody else has set an LR to `found` in place of `own`, in one param `group` where that is known."""
    where = f"param group {group}: " if group is not None else ""
    then = ": no rate can be found while something else sets it" if climbing else ", which is set again"
    reason = f"foreign_lr ({where}{found:.4g} in place of {own:.4g}{then})"
    return trouble(step, "none", reason, {"lr_found": found, "lr": own})


def foreign_step(step: int) -> Event:
    """Somebody else has stepped an optimizer before step `step` ended: what is seen is not what our updates do."""
    reason = "foreign_step (an optimizer was stepped outside of AutoLR's steps: leave optimizer.step() to them)"
    return trouble(step, "none", reason, {})


def disabled(step: int, reason: str, part: str | None = None) -> Event:
    """A `part` of the adaptive learning rate, or all of it, is not there in this run."""
    named = {} if part is None else {"part": part}
    return {"event": "adaptive_lr_disabled", "step": step, **named, "reason": reason}


def group_joined(step: int, group: int, ratio: float, lr: float) -> Event:
    """Param group number `group` was added on the way; it has `ratio` times the rate of the first, now `lr`."""
    reason = "the rate that it was added with, over the initial one of the first group, is its ratio to that"
    return {"event": "adaptive_lr_group", "step": step, "group": group, "ratio": ratio, "lr": lr, "reason": reason}
