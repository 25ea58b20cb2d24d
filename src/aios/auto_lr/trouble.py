"""The ladder for trouble: what to do when loss or gradient leave the range that this run has shown so far.

Clipping (always on, in the trainer) is the rung below; then skip an update, cut the LR, rewind to the last good
snapshot and go on with other data, stop with advice. Robust statistics (median, MAD) over at most
`window` steps, outliers kept out, the third in a row let in (as in llm.c). One vector of three numbers
(loss, gradient norm, skipped) is all a decision takes, so ranks that average it decide alike. Standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from enum import Enum
from statistics import median
from types import MappingProxyType
from typing import Any, NamedTuple

from aios.auto_lr.robust_window import RobustWindow
from aios.auto_lr.saved_state import check_state, check_version
from aios.auto_lr.trouble_config import TroubleConfig
from aios.auto_lr.trouble_state import (
    HUGE,
    RECENT_COUNTERS,
    STATE,
    TINY,
    Counters,
    Episode,
    Normal,
    counters_of,
    episode_of,
)

LET_IN = 3
"""This outlier in a row, of loss or gradient, is taken for a new regime and let into the window; this gradient that
stands alone, for one of a rare kind of batches."""
JUMP_SIGMAS, BACK_SIGMAS = 3.0, 2.0
"""How far a median of recent losses must be up to be a jump, and may be up to be back, in robust sigmas."""
STATE_VERSION = 1


class Rung(str, Enum):
    """What the trainer is to do, mildest first; RAISE stands apart: the gradient vanished, raise the LR."""

    NONE = "none"
    RAISE = "raise"
    SKIP = "skip"
    CUT = "cut"
    REWIND = "rewind"
    STOP = "stop"


class Verdict(NamedTuple):
    """The answer to one step. A reason may come without a rung: worth a line in the log, nothing to do."""

    rung: Rung = Rung.NONE
    """What to do."""
    reason: str = ""
    """A machine-readable word, then the numbers in brackets; empty when there is nothing to say."""
    numbers: Mapping[str, float] = MappingProxyType({})
    """Finite numbers for the log."""
    advice: str = ""
    """One sentence to the user; only with STOP."""
    of_batch: bool = False
    """Whether nothing but the batch is to blame if the next one is as usual: the weights have not moved."""


class TroubleMonitor:
    """Watches loss and gradient norm of each optimizer step; says when to leave the ladder's lowest rung.

    `skip_above` goes to the device before an update, `observe` takes the numbers when they arrive (on CUDA a step
    late). Keep `state_dict()` with each snapshot and hand it to `rewound` after a REWIND, which implies a cut: the
    same LR would bring the same trouble. Overflows that a gradient scaler searches its scale by are no trouble:
    do not show them.
    """

    def __init__(self, config: TroubleConfig | None = None) -> None:
        self.config = config or TroubleConfig()
        self._set_windows({})
        self._episode: Episode | None = None
        self._explosions: list[int] = []  # counts of the latest ones, within skip_window
        self._counters = Counters()

    @property
    def skip_above(self) -> float:
        """Gradient norm above which the next update is to be skipped; infinite while too little is known."""
        return math.inf if self._counters.grad_streak >= LET_IN - 1 else self._limit

    @property
    def healthy(self) -> bool:
        """Whether a snapshot taken now would be a good one to come back to."""
        return self.calm and self._counters.count - self._counters.last_trouble >= self.config.healthy_after

    @property
    def untroubled(self) -> bool:
        """Whether there was no trouble at all so far, be it for fewer steps than it takes to be `healthy`."""
        return self.calm and self._counters.last_trouble == 0

    @property
    def calm(self) -> bool:
        """Whether nothing is out of the ordinary now."""
        return self._episode is None and not (self._counters.grad_streak or self._counters.loss_streak)

    @property
    def rewinds(self) -> int:
        """Rewinds asked for and not forgiven."""
        return self._counters.rewinds

    def observe(self, step: int, loss: float, grad_norm: float, skipped: bool) -> Verdict:
        """The verdict on optimizer step `step`, a number for the log only: it may go back after a rewind.

        `loss` (nats) and `grad_norm` (before clipping) may be NaN or infinite; `skipped`: the device left the
        update out. Never raises for any float.
        """
        self._counters.count += 1
        numbers = {"step": float(step), "loss": loss, "grad_norm": grad_norm}
        if not (abs(loss) < HUGE and 0 <= grad_norm < HUGE):
            return self._non_finite(loss, numbers)
        self._counters.non_finite_streak = 0
        limit, usual = self._limit, self._log_grads.median() if len(self._log_grads) else 0.0
        self._take_gradient(math.log(max(grad_norm, TINY)), exploded=grad_norm > limit)
        verdict = self._take_loss(loss, numbers)
        self._forgive()
        if verdict.rung is Rung.NONE and (grad_norm > limit or skipped):
            explosion = self._explosion(grad_norm, math.exp(usual), skipped, numbers)
            return explosion._replace(reason="; ".join(filter(None, (verdict.reason, explosion.reason))))
        if verdict.rung is Rung.NONE and self._counters.count % self.config.window == 0:
            return self._vanishing(numbers) or verdict
        return verdict

    def forget_level(self) -> None:
        """The weights were replaced (merged): where the loss will be is unknown, its noise and the gradients not."""
        self._level = RobustWindow(self.config.level_window)
        self._recent_losses = RobustWindow(self.config.level_window)
        self._recent_log_grads = RobustWindow(self.config.level_window)
        self._episode = self._counters.mark_level = None
        self._counters.loss_streak = self._counters.probation = 0

    def rewound(self, state: Mapping[str, Any]) -> None:
        """The run went back to the snapshot that was kept with `state`: so do the windows, not the counts."""
        self.check_state(state)
        self._set_windows({**state, "recent_losses": (), "recent_log_grads": ()})
        self._episode, self._counters.last_trouble, self._explosions = None, self._counters.count, []
        self._counters.grad_streak = self._counters.loss_streak = self._counters.non_finite_streak = 0
        self._counters.probation, self._counters.blamed_until = LET_IN, self._counters.count + 2 * self.config.patience

    def state_dict(self) -> dict[str, Any]:
        """Everything known, as plain numbers, strings, lists and dicts (loads with `weights_only=True`)."""
        return {
            "version": STATE_VERSION,
            **asdict(self._counters),
            "episode": asdict(self._episode) if self._episode else None,
            "explosions": list(self._explosions),
            "log_grads": list(self._log_grads),
            "residuals": list(self._residuals),
            "level": list(self._level),
            "recent_losses": list(self._recent_losses),
            "recent_log_grads": list(self._recent_log_grads),
        }

    @staticmethod
    def check_state(state: Any) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `load_state_dict` takes."""
        check_state("trouble state", state, STATE, may_lack=RECENT_COUNTERS)
        check_version("trouble state", state, STATE_VERSION)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; the settings stay this monitor's. ValueError for any other kind of state."""
        self.check_state(state)
        self._set_windows(state)
        self._counters, self._episode = counters_of(state), episode_of(state)
        self._explosions = list(state["explosions"])

    def _set_windows(self, state: Mapping[str, Any]) -> None:
        long, short = self.config.window, self.config.level_window
        self._log_grads = RobustWindow(long, state.get("log_grads", ()))
        self._residuals = RobustWindow(long, state.get("residuals", ()))  # loss - level, each at its time
        self._level = RobustWindow(short, state.get("level", ()))
        self._recent_losses = RobustWindow(short, state.get("recent_losses", ()))  # outliers too
        self._recent_log_grads = RobustWindow(short, state.get("recent_log_grads", ()))
        self._limit = self._grad_limit()

    def _grad_limit(self) -> float:
        """Gradient norm above which the next one is an outlier."""
        config, window = self.config, self._log_grads
        if len(window) < config.min_fill:
            return math.inf
        least = math.log(config.grad_ratio)
        limit, own = window.median() + max(least, config.grad_sigmas * window.sigma()), self._counters.own_log_grad
        if own is not None:
            limit = max(limit, own + least)
        return math.exp(min(limit, math.log(HUGE)))

    def _take_gradient(self, log_grad: float, exploded: bool) -> None:
        self._recent_log_grads.add(log_grad)
        self._counters.grad_streak = self._counters.grad_streak + 1 if exploded else 0
        if not exploded or self._counters.grad_streak >= LET_IN:
            self._log_grads.add(log_grad)
        if self._counters.grad_streak == self.config.level_window:  # it stays there, so that is what is usual now
            self._log_grads = RobustWindow(self.config.window, self._recent_log_grads)
            self._counters.grad_streak = 0
        self._limit = self._grad_limit()

    def _normal(self) -> Normal | None:
        """What is normal now, None while too little is known."""
        known = len(self._level) >= self.config.level_window // 2  # less only just after forget_level()
        if not known or len(self._residuals) < self.config.min_fill or len(self._log_grads) < 1:
            return None
        level, floor = self._level.median(), self._least_jump() / self.config.loss_sigmas
        sigma = max(self._residuals.sigma(), floor)
        return Normal(level + self._residuals.median(), sigma, self._log_grads.median())

    def _least_jump(self) -> float:
        counters = self._counters
        return self.config.loss_jump * max(
            abs(self._level.median()), abs(counters.first_level or 0.0), counters.own_loss or 0.0
        )

    def _take_loss(self, loss: float, numbers: dict[str, float]) -> Verdict:
        normal = self._episode.before if self._episode else self._normal()
        outlier = normal is not None and loss > normal.level + self.config.loss_sigmas * normal.sigma
        self._recent_losses.add(loss)
        self._counters.loss_streak = self._counters.loss_streak + 1 if outlier else 0
        if not outlier or self._counters.loss_streak >= LET_IN:
            if len(self._level):
                self._residuals.add(loss - self._level.median())
            self._level.add(loss)
        if self._counters.first_level is None and len(self._level) == self.config.level_window:
            self._counters.first_level = self._level.median()
        if normal is None:
            return Verdict()
        if self._counters.probation:
            return self._on_probation(loss > normal.level + JUMP_SIGMAS * normal.sigma, numbers)
        if outlier and self._episode is None:
            self._episode = Episode("jump", self._counters.count + self.config.sustain - 1, loss, normal)
        if self._episode and self._counters.count >= self._episode.deadline:
            return self._judge(self._episode, numbers)
        return Verdict()

    def _on_probation(self, high: bool, numbers: dict[str, float]) -> Verdict:
        """The first losses after a rewind: the weights are good, so if the loss is high at once it is the data."""
        self._counters.probation = self._counters.probation - 1 if high else 0
        if not high or self._counters.probation:
            return Verdict()
        return self._accept("after a rewind", numbers)

    def _judge(self, episode: Episode, numbers: dict[str, float]) -> Verdict:
        """What becomes of an episode whose deadline has come."""
        config, before, phase = self.config, episode.before, episode.phase
        newest = list(self._recent_losses)[-config.sustain :] if phase == "jump" else self._recent_losses.values
        loss, grads = median(newest), list(self._recent_log_grads)[-len(newest) :]
        ratio = math.exp(min(median(grads) - before.log_grad, 80.0))
        numbers |= {"loss_now": loss, "loss_before": before.level, "sigma": before.sigma, "grad_ratio": ratio}
        if loss <= before.level + (JUMP_SIGMAS if phase == "jump" else BACK_SIGMAS) * before.sigma:
            self._episode = None
            return Verdict() if phase == "jump" else Verdict(Rung.NONE, f"recovered ({loss:.4g})", numbers)
        how = f"({loss:.4g} vs {before.level:.4g}, gradient x{ratio:.3g})"
        if phase == "cut" or (phase == "jump" and self._counters.count <= self._counters.blamed_until):
            return self._rewind(f"persistent_trouble {how}", numbers)
        if phase == "jump" and ratio <= config.same_order:
            self._episode = Episode("watch", self._counters.count + config.patience, loss, before)
            return Verdict(Rung.NONE, f"loss_jump {how}", numbers)
        if phase == "watch" and config.collapse <= ratio <= config.same_order and loss < episode.height:
            return self._accept(how, numbers)
        return self._cut(f"loss_spike {how}", numbers)

    def _accept(self, why: str, numbers: dict[str, float]) -> Verdict:
        """The data changed: what the loss is now is normal, and the goal of a run that had been rewound."""
        self._level = RobustWindow(self.config.level_window, self._recent_losses.values)
        self._residuals = RobustWindow(self.config.window)
        counters = self._counters
        self._episode, self._explosions = None, []
        counters.loss_streak = counters.below = 0
        counters.last_trouble, counters.goal = counters.count, self._level.median()
        return Verdict(Rung.NONE, f"regime_change {why}", numbers)

    def _cut(self, reason: str, numbers: dict[str, float]) -> Verdict:
        before = self._episode.before if self._episode else self._normal()
        self._counters.last_trouble, self._explosions = self._counters.count, []
        if before is not None:
            height = self._recent_losses.median()
            self._episode = Episode("cut", self._counters.count + self.config.patience, height, before)
        return Verdict(Rung.CUT, reason, numbers)

    def _rewind(self, reason: str, numbers: dict[str, float]) -> Verdict:
        """Ask for a rewind, or for a stop when too many of them did no good."""
        before = self._episode.before if self._episode else self._normal()
        if self._counters.goal is None and before is not None:
            self._counters.goal = before.level
        if self._episode:  # lives on only where the caller has no snapshot to go back to
            height, deadline = self._recent_losses.median(), self._counters.count + self.config.patience
            self._episode = replace(self._episode, phase="watch", deadline=deadline, height=height)
        self._counters.last_trouble = self._counters.count
        if self._counters.rewinds >= self.config.max_rewinds:
            advice = (
                f"Training did not recover after {self._counters.rewinds} rewinds ({reason}): lower the learning rate, "
                "look at the data near this step, then resume from the last checkpoint."
            )
            return Verdict(Rung.STOP, f"rewinds_exhausted ({reason})", numbers, advice)
        self._counters.rewinds, self._counters.below = self._counters.rewinds + 1, 0
        return Verdict(Rung.REWIND, reason, numbers | {"rewinds": float(self._counters.rewinds)})

    def _explosion(self, norm: float, usual: float, skipped: bool, numbers: dict[str, float]) -> Verdict:
        counters, log_norm = self._counters, math.log(max(norm, TINY))
        counters.last_trouble = counters.count
        if counters.grad_streak <= LET_IN:  # those let in after it are the new normal
            recent = [c for c in self._explosions if counters.count - c < self.config.skip_window]
            self._explosions = [*recent, counters.count][-self.config.skips_to_cut :]
            counters.explosions_left_out += 1
            highest = counters.highest_log_grad
            counters.highest_log_grad = log_norm if highest is None else max(highest, log_norm)
        reason = f"gradient_explosion ({norm:.4g} vs median {usual:.4g})"
        numbers |= {"grad_median": usual}
        phase = self._episode.phase if self._episode is not None else "jump"  # which the same batch may have begun
        many = len(self._explosions) == self.config.skips_to_cut
        if phase == "jump" and (counters.explosion_cuts if many else self._stands_alone_again):
            return self._own(reason, skipped, numbers)
        if many and phase != "cut":
            counters.explosion_cuts += 1
            return self._cut(reason, numbers)
        return Verdict(Rung.SKIP if skipped else Rung.NONE, reason, numbers)

    @property
    def _stands_alone_again(self) -> bool:
        """Whether the newest explosion, alone of its kind for a while, is one of several in the run."""
        return len(self._explosions) == 1 and self._counters.explosions_left_out >= LET_IN

    def _own(self, reason: str, skipped: bool, numbers: dict[str, float]) -> Verdict:
        """Such gradients come again and again and the loss is no worse for them, at a lower LR neither: some batches
        are of a rare kind (a rare class, say), and to leave them out for ever would be not to learn it."""
        counters = self._counters
        counters.own_log_grad, counters.highest_log_grad = counters.highest_log_grad, None
        counters.own_loss = max(counters.own_loss or 0.0, abs(numbers["loss"]))
        counters.explosions_left_out = counters.explosion_cuts = 0
        self._explosions, self._limit = [], self._grad_limit()
        return Verdict(Rung.SKIP if skipped else Rung.NONE, f"rare_batches {reason.partition(' ')[2]}", numbers)

    def _non_finite(self, loss: float, numbers: dict[str, float]) -> Verdict:
        """The weights did not move: nothing to cut, unless it goes on and they must be to blame."""
        self._counters.last_trouble = self._counters.count
        self._counters.non_finite_streak += 1
        reason = "non_finite_gradient" if abs(loss) < HUGE else "non_finite_loss"
        numbers = {name: value for name, value in numbers.items() if math.isfinite(value)}
        if self._counters.non_finite_streak % self.config.non_finite_patience == 0:
            return self._rewind(f"{reason} ({self._counters.non_finite_streak} in a row)", numbers)
        return Verdict(Rung.SKIP, f"{reason} ({self._counters.non_finite_streak} in a row)", numbers, of_batch=True)

    def _forgive(self) -> None:
        """Progress, the loss clearly below the goal for a while, forgives rewinds."""
        if not self._counters.rewinds or not len(self._level):
            return
        level = self._level.median()
        self._counters.goal = level if self._counters.goal is None else self._counters.goal
        self._counters.below = self._counters.below + 1 if level < self._counters.goal - self._least_jump() / 5 else 0
        if self._counters.below >= self.config.forgive_after:
            self._counters.rewinds, self._counters.goal = 0, None

    def _vanishing(self, numbers: dict[str, float]) -> Verdict | None:
        """Once per window: a gradient far below its best while the loss neither falls nor has gone to zero."""
        normal, mark = self._normal(), self._counters.mark_level
        if normal is None or self._episode or len(self._log_grads) < self.config.window:
            return None
        self._counters.mark_level = normal.level
        self._counters.peak_log_grad = max(self._counters.peak_log_grad, normal.log_grad)
        ratio = math.exp(normal.log_grad - self._counters.peak_log_grad)
        flat = mark is not None and abs(normal.level - mark) <= normal.sigma / 2
        learned = normal.level < abs(self._counters.first_level or 0.0) / 10
        if ratio >= self.config.vanishing_ratio or not flat or learned:
            return None
        reason = f"vanishing_gradient ({ratio:.2g} of its highest, loss {normal.level:.4g})"
        return Verdict(Rung.RAISE, reason, numbers | {"grad_ratio": ratio, "loss_now": normal.level})
