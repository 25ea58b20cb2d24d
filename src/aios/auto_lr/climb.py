"""The search that is the warm-up: the rate climbs through steps that are kept, until a higher one gains nothing.

The rate rises geometrically through real batches; the loss falls, faster and faster, until higher rates gain nothing
more (it stays where it is) or break what was learned (it rises). The *knee* is the lowest rate that had reached the
lowest loss. Training goes back to where the loss was lowest and goes on with a rate somewhat below the knee; all that
was learned up to there is kept.

Why the knee: the minimum itself wanders over a decade where the loss is flat (text models rest at the entropy of
single tokens up to absurd rates), the steepest descent over two. A slower climb finds its knee at a lower rate, and so
the pace is also the correction for the run's length.

The decades in which nothing happens are skipped by what an update does to the weights. Everything here is a pure
function of the numbers observed.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aios.auto_lr.robust_window import scatter
from aios.auto_lr.saved_state import BALANCE, COUNT, NUMBER, POSITIVE_COUNT, RATE, check_state, optional, row, series
from aios.auto_lr.search import BUDGET, LOST_IN_A_ROW, Found

ROUNDING = 1e-6
"""A fall of a smaller part of the loss is none, however calm the loss."""
_MOST_DECADES = 12.0
_ON_THEIR_WAY = 2
"""Steps that may have been launched before a loss is known."""


@dataclass(frozen=True)
class ClimbConfig:
    """Settings of the climb. Changes are those of an update: RMS of the change over RMS of the weight."""

    decade: float = 0.06
    """Part of the run's steps in which the rate rises by a factor of ten: a slower climb finds a lower rate, and longer
    runs want lower ones, though by about half that power of their length (steps^-0.3, arXiv 2409.19913) ..."""
    long_decade: int = 60
    """... hence no more than so many steps, or the square root of the run's where that is more ..."""
    calm_steps: int = 30
    """... and no fewer than so many, for the loss follows the rate late (most of all under SGD) ..."""
    short_decade: float = 0.1
    """... but never more than this part of the run ..."""
    shortest_decade: int = 8
    """... and never fewer than this many."""
    first_lr: float = 1e-8
    """Where it is tried first what an update does to the weights."""
    visible_change: float = 1e-6
    """Smallest change that is no rounding error of fp32."""
    first_change: float = 1e-3
    """Change by the first update of the climb proper: far below what trains, whatever the optimizer."""
    harmful_change: float = 0.01
    """Updates smaller than this break nothing: a rise of the loss before is noise, or passes."""
    longest: float = 0.35
    """Part of the run that the climb may take; then it ends wherever it is."""
    last_lr: float = 1e3
    """Where the climb ends if nothing else ends it."""
    rise: float = 0.1
    """The loss has risen when it stands this part of its fall above the lowest ..."""
    rise_sigmas: float = 3.0
    """... and at least so many of its standard deviations, beyond what the lowest of so many losses is by chance."""
    tolerance: float = 0.05
    """The knee: as low as the lowest loss but for this part of the fall ..."""
    tolerance_sigmas: float = 0.5
    """... or so many standard deviations."""
    clear_sigmas: float = 3.0
    """A fall is clear by so many standard errors, beyond what the lowest of so many losses is by chance."""
    recent: int = 16
    """So many losses in a row tell the noise between batches at a time: a model that has learned nothing yet finds all
    batches alike."""
    flat_decades: float = 0.45
    """The climb ends when it is so far past its knee; a knee nearer to where harm ended it counts as so far below, for
    of the same problem's climbs those that harm ends have higher knees, by up to twice."""
    lag: int = 10
    """The loss follows the rate by some steps, however fast the climb: the rate taken is that of so many before the
    knee ..."""
    largest_divisor: float = 2.5
    """... though not less than the knee's divided by this ..."""
    unscaled_divisor: float = 5 / 3
    """... and where the optimizer keeps no second moments, that divided by this: such updates do not shrink as
    gradients grow noisy, which the climb is too early to see (SGD, Lion)."""


@dataclass(frozen=True)
class Shape:
    """What a climb has shown so far."""

    lowest: float
    """The lowest smoothed loss."""
    fall: float
    """From the first losses to it."""
    sigma: float
    """Standard deviation of the smoothed loss of now, by the noise from batch to batch."""
    clear: bool
    """Whether the loss fell by more than noise can make it."""
    knee: int
    """Index of the first point as low, within the tolerance."""


class Climb:
    """One climb in a run of `steps` optimizer steps: `next_lr` before each, `observe` when its numbers are there.

    Observations may lag behind by a step or two. `ended` says why it is over.
    """

    def __init__(self, steps: int, config: ClimbConfig) -> None:
        self.config = config
        self.steps_per_decade = steps_per_decade(steps, config)
        self.unit: float | None = None
        """Change of the weights by an update, per unit of learning rate, as the first ones had it."""
        self.ended: str | None = None
        """Why the climb is over, in plain words; None while it goes on."""
        self.broke = False
        """Whether it was ended by harm: a loss that had risen or was no longer finite."""
        self.most_points = max(1, round(config.longest * steps))
        self._trying = config.first_lr
        self._first_lr: float | None = None  # of the climb proper
        self._launched = 0
        self._points: list[list[float]] = []  # [lr, loss, smoothed loss]
        self._lost = 0  # losses in a row that were not finite
        self._kept_knee = self._kept_at = -1  # indices: knee and newest point when a state was last worth keeping

    @property
    def _alpha(self) -> float:
        """Weight of the newest loss in the moving average."""
        return min(0.5, 12 / self.steps_per_decade)

    @property
    def _lost_enough(self) -> bool:
        """Whether the steps behind the state that was kept last are as many as may be lost, those on their way among
        them."""
        most = math.floor(BUDGET * self.most_points / self.config.longest) - _ON_THEIR_WAY
        return self._kept_at >= 0 and len(self._points) - 1 - self._kept_at >= most

    def next_lr(self) -> float:
        """The rate of the next step."""
        if self._first_lr is None:
            return self._trying
        lr = self._first_lr * 10 ** min(self._launched / self.steps_per_decade, _MOST_DECADES)
        self._launched += 1
        return lr

    def observe(self, lr: float, loss: float, change: float) -> bool:
        """Take what a step at `lr` cost and did; returns whether the state of now is worth going back to.

        `change` is RMS of the update over RMS of the weights; a loss that is not finite had no update.
        """
        if self.ended is not None:
            return False
        if self._first_lr is not None and lr < 0.999 * self._first_lr:
            return False  # launched before it was known where to begin
        if not math.isfinite(loss):
            return self._miss(lr)
        self._lost = 0
        if self._first_lr is None:
            self._approach(lr, change)
            return False
        self._take(lr, loss)
        return self._judge(change)

    def found(self, lost: int, second_moments: bool = True) -> Found:
        """What the climb has found; `lost` steps were taken back when it ended.

        `second_moments`: whether the optimizer scales its updates by those of the gradient.
        """
        rates, losses = tuple(p[0] for p in self._points), tuple(p[2] for p in self._points)
        edge = rates[-1] if rates else None
        shape = self.shape() if self._points else None
        if shape is None or not shape.clear:
            lr, reason = None, f"the loss did not fall clearly at any rate; {self.ended}"
        else:
            knee = rates[shape.knee]
            calm = rates[-1] / 10**self.config.flat_decades if self.broke else knee
            lr = min(knee, calm) / divisor(self.steps_per_decade, self.config, second_moments)
            reason = f"higher rates than {knee:.3g} gained nothing; {self.ended}; back to where the loss was lowest"
        return Found("climb", rates, losses, lr, edge, reason, lost, self.broke, self.steps_per_decade)

    def shape(self) -> Shape:
        """What the points so far show; there must be one."""
        config, smooth = self.config, [p[2] for p in self._points]
        losses = [p[1] for p in self._points]
        lowest, usual = min(smooth), scatter(losses)
        down = losses[: smooth.index(lowest) + 1]
        then, now = (max(usual, scatter(part[-config.recent :])) for part in (down, losses))
        smoothing = math.sqrt(self._alpha / (2 - self._alpha))
        fall = statistics.median(losses[:3]) - lowest
        reach = lowest + max(config.tolerance * fall, config.tolerance_sigmas * smoothing * then)
        knee = next(i for i, loss in enumerate(smooth) if loss <= reach)
        return Shape(lowest, fall, smoothing * now, self._clear(len(losses), down, usual, then), knee)

    def _clear(self, points: int, down: list[float], usual: float, then: float) -> bool:
        """Whether the loss fell by more than noise can make it: half a decade where it began against half a decade
        where it was lowest, long enough to see an adapter's small fall in the noise of its batches.

        `down` are the losses up to the lowest; `usual` and `then` the noise at both ends.
        """
        count = max(3, self.steps_per_decade // 2)
        ends = down[:count], down[-count - 2 :]  # two more, for the middle ones of the first
        first, level = (statistics.fmean(middles(end)[-count:]) for end in ends)
        sigmas = self.config.clear_sigmas + low_by_chance(points / count)
        error = math.sqrt((usual * usual + then * then) / min(count, len(down)))
        return first - level > max(sigmas * error, ROUNDING * abs(first))

    def settle(self) -> bool:
        """Let the climb be over where it knows its knee by now, because a copy of the state has to be taken; returns
        whether it is. Past the knee the state of now is not one to come back to."""
        if self.ended is None and self._points:
            shape, newest = self.shape(), len(self._points) - 1
            if shape.clear and newest > shape.knee + self.steps_per_decade / 8:
                self.ended = f"at {self._points[-1][0]:.3g} it was no lower, and a checkpoint was due"
        return self.ended is not None

    def _approach(self, lr: float, change: float) -> None:
        """Find where an update of the wanted size begins: ten times higher until the change can be seen."""
        config = self.config
        if lr != self._trying:
            return  # launched before the last decision
        if math.isfinite(change) and change >= config.visible_change:
            self.unit = change / lr
            self._first_lr = min(config.first_change / self.unit, config.last_lr)
        elif lr >= config.last_lr:
            self.ended = f"no weight moved at any rate up to {lr:.3g}: does the optimizer train the model?"
        else:
            self._trying = min(10 * lr, config.last_lr)

    def _take(self, lr: float, loss: float) -> None:
        """Add a point. It is smoothed by a moving average of the middle ones of three losses each, for one odd batch,
        easy or corrupt, tells nothing of the rate."""
        self._points.append([lr, loss, loss])
        middle = statistics.median(point[1] for point in self._points[-3:])
        if len(self._points) > 3:
            before = self._points[-2][2]
            self._points[-1][2] = before + self._alpha * (middle - before)
        else:
            for point in self._points:
                point[2] = middle

    def _miss(self, lr: float) -> bool:
        """A loss that is not finite."""
        self._lost += 1
        if self._lost == LOST_IN_A_ROW:
            self.ended, self.broke = f"at {lr:.3g} the loss was no longer finite", True
        return False

    def _judge(self, change: float) -> bool:
        config, shape, (lr, _, smooth) = self.config, self.shape(), self._points[-1]
        sigmas = config.rise_sigmas + low_by_chance(self._alpha * len(self._points))
        risen = smooth > shape.lowest + max(config.rise * shape.fall, sigmas * shape.sigma)
        past = len(self._points) - 1 - shape.knee
        if change >= config.harmful_change and len(self._points) > 5:
            if risen and past > self.steps_per_decade / 8:
                self.ended, self.broke = f"at {lr:.3g} the loss had risen", True
            elif shape.clear and (past > config.flat_decades * self.steps_per_decade or self._lost_enough):
                self.ended = f"up to {lr:.3g} it fell no further"
        if self.ended is None and (lr >= config.last_lr or len(self._points) >= self.most_points):
            self.ended = f"nothing broke up to {lr:.3g}"
        return self.ended is None and self._worth_keeping(shape)

    def _worth_keeping(self, shape: Shape) -> bool:
        """Whether the knee has moved on since a state was kept, and not just now: a copy costs a part of a step.

        Never far behind the knee: there the loss may be as low, but the weights have been through higher rates.
        """
        newest, apart = len(self._points) - 1, self.steps_per_decade / 8
        if shape.knee <= self._kept_knee or newest < self._kept_at + apart or newest > shape.knee + apart:
            return False
        self._kept_knee, self._kept_at = shape.knee, newest
        return True

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            **{"steps_per_decade": self.steps_per_decade, "most_points": self.most_points},
            **{"unit": self.unit, "trying": self._trying, "first_lr": self._first_lr},
            **{"kept_knee": self._kept_knee, "kept_at": self._kept_at},
            **{"launched": self._launched, "lost": self._lost, "points": [list(point) for point in self._points]},
        }

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `from_state` takes."""
        check_state("climb state", state, _STATE)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], config: ClimbConfig) -> Climb:
        """Go on from what `state_dict` returned of a climb that had not ended; ValueError for anything else."""
        cls.check_state(state)
        climb = cls(1, config)
        climb.steps_per_decade, climb.most_points = state["steps_per_decade"], state["most_points"]
        climb.unit, climb._trying, climb._first_lr = state["unit"], state["trying"], state["first_lr"]
        climb._kept_knee, climb._kept_at = state["kept_knee"], state["kept_at"]
        climb._launched, climb._lost = state["launched"], state["lost"]
        climb._points = [list(point) for point in state["points"]]
        return climb


def steps_per_decade(steps: int, config: ClimbConfig) -> int:
    """Steps in which the rate rises tenfold, in a run of `steps`."""
    wanted = min(config.decade * steps, max(config.long_decade, math.sqrt(steps)))
    most = config.short_decade * steps
    return max(config.shortest_decade, round(min(max(wanted, config.calm_steps), most)))


def divisor(pace: int, config: ClimbConfig, second_moments: bool) -> float:
    """What the knee of a climb with `pace` steps to a decade is divided by."""
    lagging = min(config.largest_divisor, 10 ** (config.lag / pace))
    return lagging if second_moments else lagging * config.unscaled_divisor


def middles(losses: Sequence[float]) -> list[float]:
    """The middle one of each loss and the two before it, at the start of as many as there are."""
    return [statistics.median(losses[max(0, i - 2) : i + 1]) for i in range(len(losses))]


def low_by_chance(n: float) -> float:
    """Standard deviations by which the lowest of about `n` independent normal numbers lies below their mean."""
    return math.sqrt(2 * math.log(max(1.0, n)))


_STATE = {
    **dict.fromkeys(("steps_per_decade", "most_points"), POSITIVE_COUNT),
    **{"unit": optional(RATE), "trying": RATE, "first_lr": optional(RATE)},
    **dict.fromkeys(("kept_knee", "kept_at"), BALANCE),
    **{"launched": COUNT, "lost": COUNT, "points": series(row(RATE, NUMBER, NUMBER))},
}
