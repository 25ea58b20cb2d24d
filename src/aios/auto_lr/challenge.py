"""Would a higher rate do better? Asked of the training itself, on the same batches, once the warm-up is over.

The search judges a fresh model under a fresh optimizer. Some bear many times as much when both have settled: RMSprop,
say, whose running mean of squared gradients starts at zero, or a recurrent net. So a few steps are trained at a
higher rate and taken back; then the run trains on the very same batches at its own, and the losses are compared batch
by batch. Over so few steps a low rate looks better than it is, because it makes less noise (Wu et al. 2018, arXiv
1803.02021): a higher one that clearly wins even so is better in the long run, too. One that does not win says
nothing, and a lower one is therefore never tried.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.search import RangeTestConfig, RangeTestResult

LogFn = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class ChallengeConfig:
    """How a higher rate is tried, and what it has to show."""

    steps: int = 32
    """Length; the second half is compared. With 16 a GPT whose rate is right gains up to 3 %, with 32 up to 1.4 %."""
    factor: float = 3.0
    """Ratio of the higher rate to the one in force."""
    gain: float = 0.03
    """The loss has to be lower by this part of itself ..."""
    sigmas: float = 4.0
    """... and by so many standard errors."""
    headroom: float = RangeTestConfig.headroom
    """Upper bound of the LR after a win: the higher rate x headroom, as after a search."""


class Outcome(NamedTuple):
    """What a challenge has shown."""

    gain: float
    """By which part of the loss the higher rate was better; below zero where it was worse."""
    error: float
    """Standard error of the gain."""
    won: bool
    """Whether the higher rate is to be taken."""


def compare(own: Sequence[float], challenger: Sequence[float], config: ChallengeConfig) -> Outcome:
    """Losses of the same batches, at the rate in force and at the higher one; NaN or fewer of the latter lose."""
    if len(challenger) < len(own) or not all(map(math.isfinite, challenger)):
        return Outcome(-math.inf, 0.0, won=False)
    half = len(own) // 2
    gains = [a - b for a, b in zip(own[half:], challenger[half:], strict=True)]
    level = abs(statistics.fmean(own[half:])) or math.ulp(0.0)
    gain = statistics.fmean(gains) / level
    error = statistics.stdev(gains) / math.sqrt(len(gains)) / level
    return Outcome(gain, error, won=gain > max(config.gain, config.sigmas * error))


class Challenge:
    """Challenges of the rate of `scheduler`, one after the other, until one is lost or `budget` steps are used up.

    All that decides is losses that ranks agree on. `log_fn` receives one event when a challenge begins and one when
    it is decided.
    """

    def __init__(
        self,
        scheduler: AutoLRScheduler,
        budget: int,
        log_fn: LogFn,
        config: ChallengeConfig,
    ) -> None:
        self.config = config
        self.budget = budget
        """Steps that may still be lost."""
        self.over = False
        """Whether there is nothing more to try."""
        self._scheduler, self._log = scheduler, log_fn
        self._began = 0  # the step after which the run trains on the challenger's batches
        self._lr = self._own_lr = 0.0
        self._theirs: list[float] = []
        self._own: list[float] = []

    @property
    def running(self) -> bool:
        """Whether the run is training on the batches that the higher rate has been tried on."""
        return bool(self._theirs)

    def next_lr(self, step: int, end: int) -> float | None:
        """The rate to try after optimizer step `step`; None where there is none or no time for it before `end`."""
        steps = self.config.steps
        if self.over or self.running or self.budget < steps or step + 2 * steps > end:
            return None
        return self._scheduler.current_lr * self.config.factor

    def begin(self, step: int, lr: float, losses: Sequence[float]) -> None:
        """Take what training at `lr` has shown; `step` counts it, and the same batches come next."""
        self.budget -= len(losses)
        self._scheduler.start_step += len(losses)  # it did not see them
        self._began, self._lr, self._own_lr = step, lr, self._scheduler.current_lr
        self._theirs, self._own = list(losses), []
        finite = [loss if math.isfinite(loss) else None for loss in losses]
        rates = {"lr": self._own_lr, "challenger_lr": lr}
        self._log(
            {"event": "adaptive_lr_challenge", "step": step, **rates, "used_steps": len(losses), "losses": finite}
        )

    def observe(self, step: int, loss: float) -> bool:
        """Take the loss of optimizer step `step`; returns whether the higher rate has won and is in force now."""
        if not self.running or step <= self._began:
            return False
        if not math.isfinite(loss) or self._scheduler.current_lr < self._own_lr or self._scheduler.annealing:
            self.cancel()
            return False
        self._own.append(loss)
        if len(self._own) < self.config.steps:
            return False
        outcome = compare(self._own, self._theirs, self.config)
        self._theirs, self._own = [], []
        self.over = not outcome.won
        self._conclude(step, outcome)
        return outcome.won

    def cancel(self) -> None:
        """Trouble, or a change of the weights or the rate, leaves nothing to compare with."""
        if self.running:
            self._theirs, self._own, self.over = [], [], True

    def _conclude(self, step: int, outcome: Outcome) -> None:
        gain = outcome.gain if math.isfinite(outcome.gain) else None
        numbers = {"challenger_lr": self._lr, "gain": gain, "error": outcome.error, "won": outcome.won}
        self._log({"event": "adaptive_lr_challenge_result", "step": step, **numbers})
        if outcome.won:
            reason = f"higher_rate_won (loss lower by {outcome.gain:.2%}, error {outcome.error:.2%})"
            self._scheduler.raise_to(self._lr, self._lr * self.config.headroom, "challenge_increase", reason)

    @classmethod
    def from_state(
        cls, scheduler: AutoLRScheduler, state: Mapping[str, Any], log_fn: LogFn, config: ChallengeConfig
    ) -> Challenge:
        """Go on from what `state_dict` returned; ValueError for losses of more steps than a challenge has."""
        if len(state["own"]) > len(state["theirs"]) or len(state["theirs"]) > config.steps:
            raise ValueError(f"{len(state['own'])} and {len(state['theirs'])} losses are not of {config.steps} steps")
        challenge = cls(scheduler, state["budget"], log_fn, config)
        challenge.over = state["over"]
        challenge._began, challenge._lr, challenge._own_lr = state["began"], state["lr"], state["own_lr"]
        challenge._theirs, challenge._own = list(state["theirs"]), list(state["own"])
        return challenge

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for `from_state`."""
        rates = {"began": self._began, "lr": self._lr, "own_lr": self._own_lr}
        return {"budget": self.budget, "over": self.over, **rates, "theirs": list(self._theirs), "own": list(self._own)}


def challenge_after(
    found: RangeTestResult,
    scheduler: AutoLRScheduler,
    total_steps: int,
    budget: float,
    log_fn: LogFn,
    config: ChallengeConfig,
) -> Challenge | None:
    """Challenges with what the search of a run of `total_steps` has left of `budget`, the part of them both may use.

    None where the LR may not go above what the search found: under bounds that somebody has set, for a mixture of
    experts, which keeps to its own, and where roles have settings of their own.
    """
    if found.lr_max != scheduler.config.lr_max or scheduler.use_moe or scheduler.roles:
        return None
    return Challenge(scheduler, math.floor(budget * total_steps) - found.steps, log_fn, config)
