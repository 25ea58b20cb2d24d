"""Short runs with an end, side by side: at which rate does the loss end lowest?

Each candidate trains from the same weights on the same batches, its rate falls linearly to zero over the second half,
and it is judged on the same further batches; all is taken back. Without the decay the lower rate would win, because it
makes less noise (Wu et al. 2018, arXiv 1803.02021). Which models are raced: docs/auto_lr.md. Pure functions but for
`run_race`, which needs a `Trial` and somebody to restore it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aios.auto_lr.ranges import Range, check_number, check_numbers
from aios.auto_lr.search import LOST_IN_A_ROW, Found, Trial, cost_in_steps

_RANGES: dict[str, Range] = {
    "factor": Range(1.01, 1e3),
    "rounds": Range(3, 64),
    **dict.fromkeys(("least_steps", "most_steps", "judges"), Range(1)),
    **dict.fromkeys(("warmup", "decay"), Range(0, 1)),
    "middle_change": Range(1e-9, 10),
}


@dataclass(frozen=True)
class RaceConfig:
    """Settings of a race; a bad value raises ValueError naming field, value and what is allowed."""

    factor: float = 2.5
    """Ratio of neighbouring candidates."""
    rounds: int = 5
    """Most candidates."""
    least_steps: int = 5
    """Shortest run that tells anything; with a smaller budget there is no race."""
    most_steps: int = 128
    """Longest run; longer ones tell nothing new."""
    judges: int = 3
    """Batches on which the ends are compared."""
    warmup: float = 0.3
    """Part of each short run in which its rate rises, for the optimizer is fresh."""
    decay: float = 0.5
    """Part of each short run, its last, in which its rate falls to zero."""
    middle_change: float = 0.01
    """Change of the weights (RMS over RMS) by the first update at the middle candidate."""

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        check_number("warmup + decay", self.warmup + self.decay, Range(0, 1))


@dataclass(frozen=True)
class Pace:
    """How long a race may be."""

    steps: int
    """Of each candidate's run."""
    candidates: int
    """How many can be run."""


def pace_of(budget: int, config: RaceConfig) -> Pace | None:
    """Length and number of the runs that `budget` steps pay for; None when too few.

    Rather four longer runs than five short ones, and three where four would be too short.
    """
    judging = cost_in_steps(0, config.judges)  # of each candidate, and of the untouched weights
    for candidates in (4, 3):
        steps = min((budget - judging) // candidates - judging, config.most_steps)
        if steps >= (2 if candidates == 4 else 1) * config.least_steps:
            return Pace(steps, min((budget - judging) // (steps + judging), config.rounds))
    return None


def factor_at(step: int, steps: int, warmup: float, decay: float) -> float:
    """Factor on the candidate's rate for update `step` (from 0) of a short run of `steps`."""
    rising = min(1.0, (step + 1) / max(1, round(warmup * steps)))
    return rising * min(1.0, (steps - step) / max(1.0, decay * steps))


def next_candidate(losses: Mapping[float, float], middle: float, config: RaceConfig) -> float | None:
    """The rate to try after those in `losses` (by rate): the middle, the one above, then on beyond the best while it
    is the first or the last of them; None when the best lies between others.

    Upwards first: a short run errs towards low rates, so the budget, which often pays for three, goes where the loss
    still falls.
    """
    for lr in (middle, middle * config.factor):
        if lr not in losses:
            return lr
    best = winner(losses)
    if best == max(losses):
        return best * config.factor
    return best / config.factor if best == min(losses) else None


def winner(losses: Mapping[float, float]) -> float:
    """The rate with the lowest loss; the lowest rate where none is finite."""
    finite = {lr: loss for lr, loss in losses.items() if math.isfinite(loss)}
    return min(finite, key=lambda lr: (finite[lr], lr)) if finite else min(losses)


def between(losses: Mapping[float, float]) -> float:
    """Where the parabola through the best rate and its neighbours, over log LR, is lowest; at most half way to one."""
    best, rates = winner(losses), sorted(losses)
    place = rates.index(best)
    if not 0 < place < len(rates) - 1:
        return best
    left, right = rates[place - 1], rates[place + 1]
    fall, rise = losses[left] - losses[best], losses[right] - losses[best]
    if not (math.isfinite(fall) and math.isfinite(rise)) or fall + rise <= 0:
        return best * math.sqrt(left / best) if not math.isfinite(rise) else best
    shift = 0.5 * (fall - rise) / (fall + rise)
    return best * math.exp(shift * math.log(right / best))


def run_race(
    trial: Trial,
    restore: Callable[[], object],
    first_batch: int,
    budget: int,
    middle: float,
    config: RaceConfig,
) -> Found | None:
    """Race rates around `middle` on the batches from `first_batch` on; `restore` brings the state back after each.

    Held also against the loss that the untouched weights have: when no candidate betters it, the lowest is taken.
    Batches on which that is not finite judge nothing. None where `budget` steps are too few.
    """
    pace = pace_of(budget, config)
    if pace is None:
        return None
    further = range(first_batch + pace.steps, first_batch + pace.steps + config.judges)
    factors = [factor_at(step, pace.steps, config.warmup, config.decay) for step in range(pace.steps)]
    seen, judging = _finite_losses(trial, restore, further), cost_in_steps(0, config.judges)
    if not seen:
        reason = f"the loss of the untouched weights is not finite on any of {config.judges} batches"
        return Found.nothing("race", reason, judging)
    losses: dict[float, float] = {}
    while len(losses) < pace.candidates and (lr := next_candidate(losses, middle, config)) is not None:
        rates = [lr * factor for factor in factors]
        losses[lr] = _mean(_short_run(trial, restore, rates, first_batch, list(seen)))
    cost = judging + len(losses) * (pace.steps + judging)
    lr, why = _verdict(losses, _mean(list(seen.values())))
    reason = f"runs of {pace.steps} steps at {len(losses)} rates: {why}"
    curve = dict(sorted(losses.items()))
    return Found("race", tuple(curve), tuple(curve.values()), lr=lr, edge=None, reason=reason, steps=cost)


def _finite_losses(trial: Trial, restore: Callable[[], object], batches: Sequence[int]) -> dict[int, float]:
    """Those of the current weights, by batch."""
    try:
        losses = {batch: trial.evaluate(batch) for batch in batches}
    finally:
        restore()  # evaluating moves random numbers and running means
    return {batch: loss for batch, loss in losses.items() if math.isfinite(loss)}


def _verdict(losses: Mapping[float, float], untouched: float) -> tuple[float, str]:
    """The rate to take, and why."""
    if losses[winner(losses)] < untouched:
        return between(losses), f"{winner(losses):.3g} ended lowest, untouched weights have {untouched:.4g}"
    return min(losses), f"none of them did better than the untouched weights ({untouched:.4g})"


def _short_run(
    trial: Trial, restore: Callable[[], object], rates: Sequence[float], first_batch: int, judges: Sequence[int]
) -> list[float]:
    """Losses on the batches `judges` after a run at `rates`, which is taken back; infinite where it broke."""
    lost = 0
    try:
        for step, lr in enumerate(rates):
            lost = 0 if math.isfinite(trial.train(first_batch + step, lr)) else lost + 1
            if lost == LOST_IN_A_ROW:
                return [math.inf]
        return [trial.evaluate(batch) for batch in judges]
    finally:
        restore()


def _mean(losses: Sequence[float]) -> float:
    mean = sum(losses) / len(losses)
    return mean if math.isfinite(mean) else math.inf
