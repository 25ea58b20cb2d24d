"""Find a learning rate by trying: a paired range test (after Smith 2017, arXiv 1506.01186), taken back afterwards.

The LR rises step by step on real batches while the loss of each batch is compared with the loss the *untouched*
weights have on the very same batch. The difference is free of the noise between batches, so that the curve is
clean after a handful of steps, also when a trained model is fine-tuned and improves by less than that noise.

The ramp measures its own range: it begins far below anything useful, goes up fast while nothing happens and
finely once the loss responds, and ends where training breaks: where the loss stands above its best by a clear
part of what it was at the start. A fixed part of the highest stable rate is safe; the rate at which the loss
fell fastest is fast. Some models train best near the one, some near the other: the suggestion is their geometric
mean, or the safe rate alone where the loss fell only just before training broke. Where it hardly fell (a trained
model) there is no fast rate to be told; a trained model bears more, and gets a larger part of the highest stable rate.
The minimum of the curve is not used: short horizons favour hot rates, and beyond the break all look alike.

`suggest` and `next_lr` are pure functions of the measured points; `run_range_test` needs only a `Trial`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class RangeTestConfig:
    """Settings of the search."""

    budget: float = 0.08
    """Largest part of the run's steps that the search may use, all of its work counted."""
    min_points: int = 16
    """Fewest points from which an LR can be told; with a smaller budget there is no search."""
    max_points: int = 36
    """Most points; more tell nothing new."""
    first_lr: float = 1e-8
    """Where the ramp begins."""
    last_lr: float = 1e3
    """Where the ramp ends if nothing breaks before."""
    coarse_factor: float = 10.0
    """Ratio of neighbouring rates while the loss does not respond."""
    response: float = 1e-3
    """Change of the loss, as a fraction of it, from which on the ramp goes finely."""
    fine_decades: float = 3.5
    """Decades from the first response to the break that the fine part has to cover."""
    break_rise: float = 0.05
    """Rise above the best difference so far, as a fraction of the first loss, that counts as broken ..."""
    break_sigmas: float = 3.0
    """... on top of so many standard deviations of the loss from batch to batch."""
    clear_drop: float = 0.1
    """Fall of the loss, as a fraction of the first, from which on the steepest descent can be told from noise."""
    lag: int = 3
    """Points by which instability shows late: it grows from step to step while the ramp goes on."""
    safety: float = 5.0
    """The highest stable LR divided by this is safe: the suggestion where the loss fell only beyond it."""
    trained_safety: float = 2.5
    """The same for a model whose loss hardly fell because it is trained. Measured when fine-tuning a small GPT (three
    seeds): a divisor of 5 ends at 1.441, 3 at 1.431, 1.7 at 1.429, 1 at 1.437."""
    lr_span: float = 100.0
    """Lower bound of the LR: suggestion / lr_span."""
    headroom: float = 1.5
    """Upper bound of the LR: suggestion x headroom."""


class RangePoint(NamedTuple):
    """One step of the ramp."""

    lr: float
    """LR of the updates up to and including the one before this batch was seen."""
    loss: float
    """Training loss on this batch along the ramp."""
    reference: float
    """Loss of the untouched weights on the same batch."""

    @property
    def change(self) -> float:
        """What training has changed; negative is better."""
        return self.loss - self.reference


@dataclass(frozen=True)
class RangeTestResult:
    """What the search found and what it cost."""

    points: tuple[RangePoint, ...]
    """The measured curve."""
    suggestion: float | None
    """LR to train with; None when the curve tells nothing, and the old LR stays."""
    lr_min: float | None
    """Lower bound that goes with the suggestion."""
    lr_max: float | None
    """Upper bound that goes with the suggestion."""
    reason: str
    """How the suggestion was reached, or why there is none."""
    steps: int
    """Optimizer steps' worth of work it took (a forward pass alone counts a third)."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """(lr_min, lr_max) where there is a suggestion."""
        return (self.lr_min, self.lr_max) if self.lr_min is not None and self.lr_max is not None else None


class Trial(Protocol):
    """What the search does to a model; the caller takes a snapshot before and restores it afterwards."""

    def evaluate(self, batch: int) -> float:
        """Training loss on batch number `batch`, weights untouched."""

    def train(self, batch: int, lr: float) -> float:
        """Training loss on batch number `batch`, then one update with `lr`."""


def points_for(total_steps: int, config: RangeTestConfig) -> int:
    """Points that the budget of a run of `total_steps` pays for; 0 when they are too few to tell an LR.

    A point costs one step and one forward pass on the untouched weights, about a third of a step; only whole
    steps are paid.
    """
    points = min(config.max_points, math.floor(config.budget * total_steps) * 3 // 4)
    return points if points >= config.min_points else 0


def cost_in_steps(trained: int, evaluated: int) -> int:
    """Optimizer steps' worth of work in `trained` steps and `evaluated` forward passes, rounded up."""
    return trained + math.ceil(evaluated / 3)


def next_lr(points: Sequence[RangePoint], total_points: int, config: RangeTestConfig) -> float | None:
    """The rate of the next step of the ramp; None when it has ended or broken."""
    if not points:
        return config.first_lr
    if find_break(points, config) is not None or len(points) >= total_points or points[-1].lr >= config.last_lr:
        return None
    fine_steps = max(4.0, total_points - _first_response(points, config))
    responds = _responds(points[-1], points[0], config)
    factor = 10 ** (config.fine_decades / fine_steps) if responds else config.coarse_factor
    # Between the two: the last coarse step may have come close to the first response, so approach it gently.
    if not responds and abs(points[-1].change) > 0.05 * config.response * abs(points[0].reference):
        factor = math.sqrt(config.coarse_factor)
    return min(points[-1].lr * factor, config.last_lr)


def _responds(point: RangePoint, first: RangePoint, config: RangeTestConfig) -> bool:
    return not math.isfinite(point.loss) or abs(point.change) > config.response * abs(first.reference)


def _first_response(points: Sequence[RangePoint], config: RangeTestConfig) -> int:
    """Number of points before the first that responds."""
    return next((i for i, p in enumerate(points) if _responds(p, points[0], config)), len(points))


def find_break(points: Sequence[RangePoint], config: RangeTestConfig) -> int | None:
    """Index of the first point that is not finite or stands clearly above the best before it; None if none does."""
    best = 0.0
    for index, point in enumerate(points):
        if not math.isfinite(point.change):
            return index
        noise = statistics.pstdev(p.reference for p in points[: index + 1])
        allowed = config.break_rise * abs(points[0].reference) + config.break_sigmas * noise
        if point.change > best + allowed:
            return index
        best = min(best, point.change)
    return None


def suggest(points: Sequence[RangePoint], config: RangeTestConfig) -> tuple[float | None, str]:
    """The LR to train with, and how it follows from the curve; None and why when the curve cannot tell one."""
    if not points or not all(math.isfinite(p.reference) for p in points):
        return None, "the loss is not finite before any update"
    broke = find_break(points, config)
    if broke is None:
        return None, f"training did not break up to LR {points[-1].lr:.3g}"
    if broke == 0 or not any(_responds(p, points[0], config) for p in points[:broke]):
        return None, f"the loss did not respond below LR {points[broke].lr:.3g}, where training broke"
    if broke <= config.lag:
        return None, f"training broke at LR {points[broke].lr:.3g}, too soon to tell"
    limit = _stable_limit(points, broke, config)
    safe = limit / config.safety
    steepest = find_steepest(points[:broke], config)
    if steepest is None:
        stable = f"training was stable up to LR {limit:.3g}"
        return limit / config.trained_safety, f"the loss hardly fell; {stable}; 1/{config.trained_safety:g} of it"
    if safe < steepest <= limit:
        lr = math.sqrt(steepest * safe)
        return lr, f"the loss fell fastest at LR {steepest:.3g}; training was stable up to {limit:.3g}"
    return safe, f"training was stable up to LR {limit:.3g}; 1/{config.safety:g} of it is safe"


def _stable_limit(points: Sequence[RangePoint], broke: int, config: RangeTestConfig) -> float:
    """The highest rate that was stable: `lag` points below the break, in steps as fine as the last one.

    A trained model may respond only just before it breaks; the points below are then decades apart.
    """
    last, step = points[broke - 1].lr, points[broke].lr / points[broke - 1].lr
    return max(points[broke - 1 - config.lag].lr, last / step**config.lag)


def find_steepest(points: Sequence[RangePoint], config: RangeTestConfig) -> float | None:
    """The LR whose updates made the loss fall fastest per decade; None where it fell too little to tell.

    The slope is taken over two intervals, so that one lucky batch does not decide.
    """
    responding = [p for p in points if _responds(p, points[0], config)]
    if len(responding) < 4 or min(p.change for p in responding) > -config.clear_drop * abs(points[0].reference):
        return None
    slopes = [
        ((after.change - before.change) / math.log10(after.lr / before.lr), middle.lr)
        for before, middle, after in zip(responding, responding[1:], responding[2:], strict=False)
    ]
    index = min(range(len(slopes)), key=lambda i: slopes[i])
    # The fall seen between two points is the work of the rates of the points before them.
    return math.sqrt(responding[index].lr * slopes[index][1])


def run_range_test(trial: Trial, total_steps: int, first_batch: int, config: RangeTestConfig) -> RangeTestResult:
    """Measure the curve on the batches from `first_batch` on and read the suggestion off it.

    A batch whose loss is not finite on the untouched weights says nothing about the LR and is left out; with more
    than a quarter of them there is no search.
    The trial's weights, optimizer and random state are left as the ramp left them: restore them.
    """
    count = points_for(total_steps, config)
    if count == 0:
        needed = math.ceil(cost_in_steps(config.min_points, config.min_points) / config.budget)
        return RangeTestResult((), None, None, None, f"too few steps for a search ({total_steps} of {needed})", 0)
    references = [(batch, trial.evaluate(batch)) for batch in range(first_batch, first_batch + count)]
    usable = [(batch, loss) for batch, loss in references if math.isfinite(loss)]
    if 4 * len(usable) < 3 * count:
        reason = f"the loss is not finite before any update ({count - len(usable)} of {count} batches)"
        return RangeTestResult((), None, None, None, reason, cost_in_steps(0, count))
    points: list[RangePoint] = []
    while (lr := next_lr(points, len(usable), config)) is not None:
        batch, reference = usable[len(points)]
        points.append(RangePoint(lr, trial.train(batch, lr), reference))
    suggestion, reason = suggest(points, config)
    cost = cost_in_steps(len(points), count)
    if suggestion is None:
        return RangeTestResult(tuple(points), None, None, None, reason, cost)
    low, high = suggestion / config.lr_span, suggestion * config.headroom
    return RangeTestResult(tuple(points), suggestion, low, high, reason, cost)


def found_to_dict(found: RangeTestResult) -> dict[str, Any]:
    """As plain values: the keys of the `adaptive_lr_search` event."""
    curve = [[p.lr, p.loss if math.isfinite(p.loss) else None, p.reference] for p in found.points]
    bounds = {"lr_min": found.lr_min, "lr_max": found.lr_max}
    return {
        "suggestion": found.suggestion,
        **bounds,
        "reason": found.reason,
        "search_steps": found.steps,
        "curve": curve,
    }


def found_from_dict(record: Mapping[str, Any]) -> RangeTestResult:
    """What `found_to_dict` made, or logged before its steps were called `search_steps`.

    Raises KeyError, TypeError or ValueError for anything else.
    """
    curve = [
        RangePoint(float(lr), math.nan if loss is None else float(loss), float(ref))
        for lr, loss, ref in record["curve"]
    ]
    found, low, high = (
        None if record[key] is None else float(record[key]) for key in ("suggestion", "lr_min", "lr_max")
    )
    steps = record["search_steps"] if "search_steps" in record else record["used_steps"]
    return RangeTestResult(tuple(curve), found, low, high, str(record["reason"]), int(steps))
