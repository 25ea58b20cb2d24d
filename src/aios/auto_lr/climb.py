"""The search that is the warm-up: the rate climbs through steps that are kept, until a higher one gains nothing.

It climbs in cycles: up to a peak, along it, and down to zero again, each peak higher than the one before. What counts
is the loss at the end of a cycle. It falls until higher peaks gain nothing more or break what was learned. The *knee*
is the lowest peak that had reached the lowest loss. Training goes back to the end of that cycle and goes on at the
knee's rate. Why so: docs/auto_lr.md. Pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.robust_window import low_by_chance, scatter
from aios.auto_lr.saved_state import COUNT, NUMBER, POSITIVE_COUNT, RATE, check_state, optional, row, series
from aios.auto_lr.search import LOST_IN_A_ROW, Found

RESOLVED = 0.25
"""A change is measured to within a factor of two if it is at least this fraction of the spacing between floats."""
ROUNDING = 1e-6
"""A fall by less than this fraction of the loss is rounding, however calm the loss."""
MOST_MOMENTUM = 0.999
"""Momentum above this is treated as this."""
_MOST_DECADES = 12.0
_HEDGE = "the rate is the mean, by magnitude, of those that the noise lets be the best"
_HIGHEST = "the loss was lowest at the highest rates, so these are taken"
_FOR_SURE = 1e6
"""Standard errors, where there is no noise."""


@dataclass(frozen=True)
class Shape:
    """What the cycles of a climb have shown so far; losses as `comparable` has them."""

    ends: tuple[float, ...]
    """How low each ended."""
    fall: float
    """From the untrained model to the lowest of them."""
    errors: tuple[float, float]
    """Standard errors of the lowest and of the newest, by the noise from batch to batch."""
    clear: bool
    """Whether the loss fell by more than noise can make it."""
    knee: float
    """Where it had become as low, within the tolerance: the number of a cycle, or between two of them."""


class Point(NamedTuple):
    """A step of a climb."""

    cycle: int
    """Number of the cycle; -1: before the first."""
    loss: float
    """Its loss, finite."""
    change: float
    """What its update changed."""


class Climb:
    """One climb in cycles: `next_lr` before each optimizer step, `observe` when its numbers are there.

    Observations may lag behind by a step or two. `ended` says why it is over.
    """

    def __init__(self, steps_per_cycle: int, points: tuple[int, int], config: ClimbConfig) -> None:
        self.config = config
        self.steps_per_cycle = steps_per_cycle
        self.unit: float | None = None
        """Change of the weights by an update, per unit of learning rate, as the first ones had it."""
        self.ended: str | None = None
        """Why the climb is over, in plain words; None while it goes on."""
        self.broke = False
        """Whether it was ended by harm: a loss that had risen or was no longer finite."""
        self.usual_points, self.most_points = points
        """Steps that the cycles may take together: as a rule, and while higher rates may still gain."""
        self._trying = config.first_lr
        self._early = 0  # steps launched before the first cycle and not yet observed
        self._launched = self._observed = 0  # steps of cycles
        self._points: list[Point] = []
        self._lost = 0  # losses in a row that were not finite

    @classmethod
    def for_run(cls, steps: int, config: ClimbConfig) -> Climb:
        """The climb of a run of `steps`."""
        usual, most = (max(1, round(part * steps)) for part in (config.longest, max(config.longest, config.furthest)))
        return cls(steps_per_cycle(steps, config), (usual, most), config)

    def next_lr(self) -> float:
        """The rate of the next step."""
        if self._first_peak is None:
            self._early += 1
            return self._trying
        number, place = divmod(self._launched, self.steps_per_cycle)
        self._launched += 1
        return self._peak(number) * part_of_peak(place, self.steps_per_cycle, self.config)

    def pass_step(self) -> None:
        """The step that `next_lr` was asked for is not made after all: the next one has its rate."""
        if self._launched > self._observed:
            self._launched -= 1
        else:
            self._early -= 1

    def observe(self, lr: float, loss: float | None, change: float) -> bool:
        """Take what a step at `lr` cost and did; returns whether the current state is worth going back to.

        `change` is RMS of the update over RMS of the weights; a loss that is not finite had no update. A loss of None
        tells nothing: its update was left out for another reason than the rate. Nor does one of exactly 0, for a batch
        in which there was nothing to predict.
        """
        if self.ended is not None:
            return False
        if self._early:
            self._take_early(lr, loss, change)
            return False
        number, place = divmod(self._observed, self.steps_per_cycle)
        self._observed += 1
        if loss is not None and math.isfinite(loss):
            self._lost = 0
            self._note(Point(number, loss, change if math.isfinite(change) else 0.0))
        elif loss is not None:
            self._miss(lr)
        return self.ended is None and place == self.steps_per_cycle - 1 and self._judge(number)

    def found(self, lost: int, momentum: float = 0.0) -> Found:
        """What the climb has found; `lost` steps were taken back when it ended.

        `momentum`, 0 to 1: of an optimizer that makes its updates from one alone.
        """
        losses, shape = self._levels(), self.shape()
        peaks = tuple(self._peak(number) for number in range(len(losses)))
        edge = self._peak((self._observed - 1) // self.steps_per_cycle) if self._observed else None
        if shape is None or edge is None or self._points[-1].cycle < 0:  # no cycle has told anything
            lr, reason = None, f"the loss did not fall clearly at any rate; {self.ended}"
        elif not shape.clear:
            lr, why = self._hedged()
            reason = f"the loss did not fall clearly at any rate; {self.ended}; {why}"
        else:
            knee, divisor = self._peak(shape.knee), self.config.divisor or 1.0
            divisor *= (1 - min(momentum, MOST_MOMENTUM)) ** -self.config.momentum_power
            lr, less = knee / divisor, "" if divisor == 1.0 else f", and a whole run wants 1/{divisor:.3g} of that"
            why = f"higher rates than {knee:.3g} gained nothing" if _past(shape) else f"{knee:.3g} is as far as it came"
            reason = f"{why}{less}; {self.ended}; back to where the loss was lowest"
        return Found(
            how="climb",
            rates=peaks,
            losses=losses,
            lr=lr,
            edge=edge,
            reason=reason,
            steps=lost,
            broke=self.broke,
            clear=shape is not None and shape.clear,
            steps_per_cycle=self.steps_per_cycle,
        )

    def _hedged(self) -> tuple[float, str]:
        """The rate where no fall is clear, and why: the geometric mean of the cycles' peaks, each weighted by how well
        noise can explain that another cycle ended lower. Where the highest did, and by more than noise makes of one
        cycle, and nothing broke, the climb has not come as far as the best rate: then the highest."""
        scale = comparable([point.loss for point in self._points])
        fallen = [self._fallen(number, scale) for number in range(self._observed // self.steps_per_cycle)]
        highest = max(fallen)
        if fallen[-1] == highest >= self.config.clear_sigmas and not self.broke:
            return self._peak(len(fallen) - 1), _HIGHEST
        weights = [math.exp(-((highest - sigmas) ** 2) / 4) for sigmas in fallen]  # of a difference the variance is 2
        number = math.fsum(number * weight for number, weight in enumerate(weights)) / math.fsum(weights)
        return self._peak(number), _HEDGE  # peaks rise by a constant factor

    def shape(self) -> Shape | None:
        """What the cycles so far show; None before the first has ended, or where no loss was told."""
        levels, start, config = self._levels(), self._start(), self.config
        if not levels or not start:
            return None
        scale = comparable([point.loss for point in self._points])
        ends = tuple(map(scale, levels))
        lowest, before = min(ends), scale(level(start))
        best, newest = ends.index(lowest), len(ends) - 1
        then, now = (self._noise(number, scale) / math.sqrt(self._telling) for number in (best, newest))
        fall = before - lowest
        knee = first_within(ends, lowest + max(config.tolerance * fall, config.tolerance_sigmas * then))
        # Any cycle that shows it counts: at high rates the loss swings within a cycle, and that is not batch noise.
        clear = any(self._clear(number, scale) for number in range(best + 1))
        return Shape(ends, fall, (then, now), clear, knee)

    def _levels(self) -> tuple[float, ...]:
        """The loss at the end of each complete cycle, at rates that hardly make noise."""
        levels: list[float] = []
        start = self._start()
        before = level(start) if start else math.inf
        for number in range(self._observed // self.steps_per_cycle):
            losses = self._losses_of(number)[-self._telling :]
            levels.append(level(losses) if losses else (levels or [before])[-1])  # a cycle without a loss: as before
        return tuple(levels)

    def _losses_of(self, number: int) -> list[float]:
        return [point.loss for point in self._points if point.cycle == number]

    @property
    def _telling(self) -> int:
        """Steps at the end of a cycle that tell how it ended."""
        return max(3, self.steps_per_cycle // 4)

    def _start(self) -> list[float]:
        """Losses of the model before it has learned much."""
        return self._losses_of(-1) + self._losses_of(0)[: self.steps_per_cycle // 2]

    def _noise(self, number: int, scale: Callable[[float], float]) -> float:
        """Standard deviation of the loss from batch to batch by the end of cycle `number`."""
        return scatter([scale(point.loss) for point in self._points if point.cycle <= number][-self.config.recent :])

    def _clear(self, number: int, scale: Callable[[float], float]) -> bool:
        """Whether the loss of cycle `number` fell by more than noise can make one of all cycles fall."""
        return self._fallen(number, scale) > self.config.clear_sigmas + low_by_chance(1 + self._points[-1].cycle)

    def _fallen(self, number: int, scale: Callable[[float], float]) -> float:
        """By how many standard errors the loss fell: the second half of cycle `number` against the start, many losses,
        to see an adapter's small fall in the noise of its batches. A cycle without losses has not fallen, for sure."""
        start, end = self._start(), self._losses_of(number)[self.steps_per_cycle // 2 :]
        if not end:
            return -_FOR_SURE
        if abs(level(start) - level(end)) <= ROUNDING * abs(level(start)):
            return 0.0
        errors = (self._noise(0, scale) / math.sqrt(len(start)), self._noise(number, scale) / math.sqrt(len(end)))
        fall, error = scale(level(start)) - scale(level(end)), math.hypot(*errors)
        return fall / error if error else math.copysign(_FOR_SURE, fall)

    @property
    def _first_peak(self) -> float | None:
        """The highest rate of the first cycle; None until it is known where to begin."""
        return None if self.unit is None else min(self.config.first_change / self.unit, self.config.last_lr)

    def _peak(self, number: float) -> float:
        """The highest rate of cycle `number`."""
        assert self._first_peak is not None
        return float(self._first_peak * 10 ** min(number / self.config.cycles_per_decade, _MOST_DECADES))

    def stop(self, why: str) -> None:
        """Let the climb be over, for a reason that does not lie in it; one that it has found itself stands."""
        self.ended = self.ended or why

    def settle(self) -> bool:
        """Let the climb be over where it knows its knee by now, because a copy of the state has to be taken; returns
        whether it is. Past the knee the current state is not one to come back to."""
        shape = self.shape()
        if self.ended is None and shape is not None and shape.clear and _past(shape) > 0:
            self.ended = f"at {self._peak(len(shape.ends) - 1):.3g} it was no lower, and a checkpoint was due"
        return self.ended is not None

    def _note(self, point: Point) -> None:
        """Keep what a step has told: a loss of exactly 0 tells nothing."""
        if point.loss:
            self._points.append(point)

    def _take_early(self, lr: float, loss: float | None, change: float) -> None:
        """A step before the first cycle, at a rate too low to train."""
        self._early -= 1
        if loss is None:
            return
        if not math.isfinite(loss):
            self._miss(lr)
            return
        self._lost = 0
        self._note(Point(-1, loss, 0.0))
        if self._first_peak is None and lr == self._trying:  # else launched before the last decision
            self._approach(lr, change)

    def _approach(self, lr: float, change: float) -> None:
        """Find where an update of the wanted size begins: ten times higher until the change can be seen."""
        config = self.config
        if math.isfinite(change) and change >= config.visible_change:
            self.unit = change / lr
        elif lr >= config.last_lr:
            self.ended = f"no weight moved at any rate up to {lr:.3g}: does the optimizer train the model?"
        else:
            self._trying = min(10 * lr, config.last_lr)

    def _miss(self, lr: float) -> None:
        """A loss that is not finite."""
        self._lost += 1
        if self._lost == LOST_IN_A_ROW:
            ever = bool(self._points)
            never = "the loss was never finite, at no rate: look at the data and the loss function"
            self.ended = f"at {lr:.3g} the loss was no longer finite" if ever else never
            self.broke = ever

    def _judge(self, number: int) -> bool:
        """See whether the climb is over with cycle `number`, which has just ended; returns whether the current state is
        worth going back to: past the knee it is not, there the weights have been through needlessly high rates."""
        shape, peak = self.shape(), self._peak(number)
        change = max((point.change for point in self._points if point.cycle == number), default=0.0)
        if shape is not None and change >= self.config.harmful_change:
            self._look_for_end(shape, peak)
        longer = self._observed + self.steps_per_cycle
        most = self.most_points if shape is not None and self._may_gain(shape, peak) else self.usual_points
        if self.ended is None and (self._peak(number + 1) > self.config.last_lr or longer > most):
            self.ended = f"nothing broke up to {peak:.3g}"
        return self.ended is None and shape is not None and _past(shape) == 0

    def _may_gain(self, shape: Shape, peak: float) -> bool:
        """Whether rates higher than the `peak` of the newest cycle may still gain."""
        if not shape.clear:
            assert self.unit is not None  # of the weights as they began: those that are harmed grow with the updates
            return peak * self.unit < self.config.drastic_change
        return _past(shape) == 0 and shape.ends[-1] == min(shape.ends)

    def _look_for_end(self, shape: Shape, peak: float) -> None:
        """End the climb where the loss has risen, or higher peaks gain nothing."""
        config = self.config
        sigmas = config.rise_sigmas + low_by_chance(len(shape.ends))
        if shape.ends[-1] - min(shape.ends) > max(config.rise * shape.fall, sigmas * math.hypot(*shape.errors)):
            self.ended, self.broke = f"at {peak:.3g} the loss had risen", True
        elif shape.clear and _past(shape) >= config.flat_cycles:
            self.ended = f"up to {peak:.3g} it fell no further"

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "steps_per_cycle": self.steps_per_cycle,
            "usual_points": self.usual_points,
            "most_points": self.most_points,
            "unit": self.unit,
            "trying": self._trying,
            "early": self._early,
            "launched": self._launched,
            "observed": self._observed,
            "lost": self._lost,
            "points": [list(point) for point in self._points],
        }

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `from_state` takes."""
        saved = check_state("climb state", state, _STATE, may_lack=("usual_points",))
        observed, launched = saved["observed"], saved["launched"]
        if not observed <= launched <= saved["most_points"] + 2 * saved["steps_per_cycle"]:
            raise ValueError(f"climb state: observed = {observed}, launched = {launched}: more steps than a climb has")

    @classmethod
    def from_state(cls, state: Mapping[str, Any], config: ClimbConfig) -> Climb:
        """Go on from what `state_dict` returned of a climb that had not ended; ValueError for anything else."""
        cls.check_state(state)
        most = state["most_points"]
        climb = cls(state["steps_per_cycle"], (state.get("usual_points", most), most), config)  # older states have one
        climb.unit, climb._trying = state["unit"], state["trying"]
        climb._early, climb._launched, climb._observed = state["early"], state["launched"], state["observed"]
        climb._lost, climb._points = state["lost"], [Point(*point) for point in state["points"]]
        return climb


def steps_per_cycle(steps: int, config: ClimbConfig) -> int:
    """Steps of one cycle in a run of `steps`."""
    wanted = max(config.calm_cycle, config.cycle * math.sqrt(steps))
    return max(config.shortest_cycle, round(min(wanted, config.short_cycle * steps)))


def part_of_peak(place: int, steps: int, config: ClimbConfig) -> float:
    """The rate over its peak in step `place`, from 0, of a cycle of `steps`: up, along, and down to zero.

    Its last rate is half a step's fall; that of a race (`race.factor_at`) a whole one, as each was measured.
    """
    up, down = max(1, round(config.rise_part * steps)), config.decay_part * steps
    return min(1.0, (place + 1) / up, (steps - place - 0.5) / down)


def level(losses: Sequence[float]) -> float:
    """Trimmed mean: drops the highest and the lowest."""
    return statistics.fmean(sorted(losses)[1:-1] if len(losses) > 2 else losses)


def comparable(losses: Sequence[float]) -> Callable[[float], float]:
    """The scale on which losses are compared: by ratio if all are positive, else by difference.

    A loss near zero falls by the same fraction of itself again and again.
    """
    return math.log if min(losses) > 0 else float


def first_within(ends: Sequence[float], reach: float) -> float:
    """Index at which `ends` first reaches `reach`, linearly interpolated."""
    first = next(i for i, end in enumerate(ends) if end <= reach)
    return first - (reach - ends[first]) / (ends[first - 1] - ends[first]) if first else 0.0


def _past(shape: Shape) -> int:
    """How many cycles have ended past the knee's."""
    return len(shape.ends) - 1 - math.ceil(shape.knee)


_STATE = {
    **dict.fromkeys(("steps_per_cycle", "usual_points", "most_points"), POSITIVE_COUNT),
    "unit": optional(RATE),
    "trying": RATE,
    **dict.fromkeys(("early", "launched", "observed", "lost"), COUNT),
    "points": series(row(NUMBER, NUMBER, NUMBER)),
}
