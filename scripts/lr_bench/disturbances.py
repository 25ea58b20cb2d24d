"""Trouble made on purpose in the middle of a run, and how long a run takes to get over it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from lr_bench.methods import Trace
from lr_bench.problems.problem import Problem

NONE = "none"
CORRUPT, NAN, KICK, CHANGE = "corrupted batch", "ten NaN batches", "LR x100", "change of data"
DISTURBANCES = (CORRUPT, NAN, KICK, CHANGE)
NAN_BATCHES = 10
KICK_FACTOR = 100.0
TOLERANCE = 0.02
"""A run has recovered when its training loss is within this part of the undisturbed run's."""
RECOVERY_WINDOW = 0.05
"""Part of the run over which that is judged, looking ahead."""


def disturbed(problem: Problem, kind: str, at: int) -> Problem:
    """The problem with trouble from its loss number `at` on, counted in calls whatever batch they ask for."""
    calls = 0

    def counted(loss: Callable[[int, int], Tensor]) -> Callable[[int], Tensor]:
        def call(batch: int) -> Tensor:
            nonlocal calls
            calls += 1
            return loss(calls - 1, batch)

        return call

    if kind == CORRUPT and problem.corrupted is not None:
        corrupted = problem.corrupted
        return replace(problem, loss=counted(lambda n, i: corrupted(i) if n == at else problem.loss(i)))
    if kind == NAN:
        stop = at + NAN_BATCHES
        return replace(problem, loss=counted(lambda n, i: problem.loss(i) * (math.nan if at <= n < stop else 1)))
    if kind == CHANGE and problem.changed is not None:
        changed = problem.changed
        later = counted(lambda n, i: changed.loss(i) if n >= at else problem.loss(i))
        return replace(problem, loss=later, evaluate=changed.evaluate)
    return problem  # nothing, or a learning rate gone wrong: no matter of the data


def kick_of(kind: str, at: int) -> tuple[int, float] | None:
    """(step, factor) of the learning rate gone wrong, if that is the trouble."""
    return (at, KICK_FACTOR) if kind == KICK else None


def blank_disturbed(trace: Trace, kind: str, at: int) -> None:
    """Take the losses of the disturbed batches themselves out of the trace: they tell nothing of the model."""
    count = {CORRUPT: 1, NAN: NAN_BATCHES}.get(kind, 0)
    for index in range(at, min(at + count, len(trace.losses))):
        trace.losses[index] = math.nan


def recovery_steps(curve: list[float | None], undisturbed: list[float | None], steps: int) -> int | None:
    """Optimizer steps from the middle of the run until it has recovered, None if it never does.

    Both curves hold the mean training losses of equal parts of a run of `steps` (None: none finite). Recovered
    is where the mean over the next `RECOVERY_WINDOW` of the run is within `TOLERANCE` of the undisturbed one.
    """
    points = min(len(curve), len(undisturbed))
    width = max(1, round(RECOVERY_WINDOW * points))
    middle = points // 2
    for point in range(middle, points - width + 1):
        pairs = list(zip(curve[point : point + width], undisturbed[point : point + width], strict=True))
        here = [(a, b) for a, b in pairs if a is not None and b is not None]
        if 2 * len(here) < width:  # a run of NaN has nothing to compare
            continue
        if sum(a for a, _ in here) <= (1 + TOLERANCE) * sum(b for _, b in here):
            return round((point - middle) * steps / points)
    return None
