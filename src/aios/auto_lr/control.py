"""The learning rate of a run, step by step: warm-up, then the scheduler or a constant, times the final anneal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from aios.auto_lr.adaptive_lr import AdaptiveLRScheduler, warmup_lr
from aios.auto_lr.anneal import Anneal
from aios.auto_lr.challenge import Challenge
from aios.auto_lr.loop.update import set_learning_rate
from aios.auto_lr.recovery import Recovery
from aios.auto_lr.saved_state import COUNT, FLAG, MAPPING, RATE, check_state, optional, row
from aios.auto_lr.scheduler import AutoLRScheduler

Emit = Callable[[dict[str, Any]], None]


class LearningRateControl:
    """Warm-up to `base_lr`, then hand over to `scheduler` (None: stay at `base_lr`), times the factor of `anneal`.

    Steps count from 1; the warm-up is the `warmup_steps` steps after `first_step` and its last one runs at `base_lr`.
    The scheduler sees no loss of the warm-up. `recovery`, where there is one, watches every step; `challenge`, where
    there is one, tries higher rates after the warm-up.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_lr: float,
        warmup_steps: int,
        scheduler: AdaptiveLRScheduler | None,
        emit: Emit,
        *,
        first_step: int = 0,
        anneal: Anneal,
        recovery: Recovery | None = None,
        bounds: tuple[float, float] | None = None,
    ) -> None:
        self.base_lr = base_lr
        self.bounds = bounds
        """(lr_min, lr_max) as measured by a search and by challenges."""
        self.warmup_steps = warmup_steps
        self.first_step = first_step
        self.scheduler = scheduler
        self.anneal = anneal
        self.recovery = recovery
        self.challenge: Challenge | None = None
        self.finishing = False
        """Whether the run was asked to finish now."""
        self._optimizer = optimizer
        self._emit = emit

    @property
    def warmup_end(self) -> int:
        """The last step of the warm-up."""
        return self.first_step + self.warmup_steps

    @property
    def skip_above(self) -> float:
        """Gradient norm above which the next update is to be skipped."""
        return self.recovery.skip_above if self.recovery is not None else math.inf

    def before_step(self, step: int) -> None:
        """Set the LR for optimizer step `step`."""
        if isinstance(self.scheduler, AutoLRScheduler):
            self.scheduler.keep_own_lr()
        if step <= self.warmup_end:
            lr = warmup_lr(self.base_lr, step - self.first_step - 1, self.warmup_steps)
        else:
            lr = self.base_lr if self.scheduler is None else self.scheduler.current_lr
        set_learning_rate(self._optimizer, lr * self.anneal.factor(step))

    def after_step(self, step: int, loss: float, grad_norm: float | None, skip_above: float = math.inf) -> None:
        """Tell what optimizer step `step` cost; `skip_above` is what its gradient norm was held against.

        `grad_norm` is None for a step that says nothing about the gradient.

        Raises:
            RunError: when trouble persists after all that can be done about it.
        """
        if step == self.warmup_end:
            self._emit({"event": "warmup_complete", "step": step, "lr": self.base_lr})
        self._follow_anneal(step)
        if step > self.warmup_end and self.scheduler is not None:
            self.scheduler.step(loss)
        if self.recovery is not None and grad_norm is not None:
            self.recovery.after_step(step, loss, grad_norm, skip_above)
        if self.challenge is not None and self.challenge.observe(step, loss):
            self._widen_bounds()

    def try_higher(
        self, step: int, end: int, settle: Callable[[], object], train: Callable[[float, int], list[float]]
    ) -> int:
        """Try a higher rate after optimizer step `step` of a run, or a part of it, that ends at `end`, if it is time.

        `settle()` reads the steps that have been launched; `train(lr, steps)` gives the losses of the next steps at
        `lr` and takes them back, so that the same batches come again. Returns the steps it took, 0 for no trial.
        """
        if self.challenge is None or self._challenger_lr(self.challenge, step, end) is None:
            return 0
        settle()
        lr = self._challenger_lr(self.challenge, step, end)
        if lr is None:
            return 0
        losses = train(lr, self.challenge.config.steps)
        self.challenge.begin(step + len(losses), lr, losses)
        return len(losses)

    def _challenger_lr(self, challenge: Challenge, step: int, end: int) -> float | None:
        troubled = self.recovery is not None and not self.recovery.monitor.healthy
        if step < self.warmup_end or troubled:
            return None
        return challenge.next_lr(step, min(end, self.anneal.start))

    def finish_now(self, step: int) -> int:
        """Anneal to zero over the next tenth of the run; returns the step at which to end."""
        self.anneal, self.finishing = self.anneal.finish_now(step), True
        self._say_anneal(step, "finish_now")
        return self.anneal.end

    def forget_reference(self) -> None:
        """The weights are about to be replaced (merged with other workers'): a jump of the loss will be no trouble."""
        if self.scheduler is not None:
            self.scheduler.forget_reference()
        if self.recovery is not None:
            self.recovery.monitor.forget_level()
        if self.challenge is not None:
            self.challenge.cancel()

    def plan(self) -> dict[str, Any]:
        """What a resumed run must know besides the scheduler's state, as plain values."""
        recovery = self.recovery.state_dict() if self.recovery is not None else None
        bounds = list(self.bounds) if self.bounds is not None else None
        challenge = self.challenge.state_dict() if self.challenge is not None else None
        return {
            "base_lr": self.base_lr,
            "bounds": bounds,
            "warmup_steps": self.warmup_steps,
            "first_step": self.first_step,
            "anneal": self.anneal.to_dict(),
            "finishing": self.finishing,
            "recovery": recovery,
            "challenge": challenge,
        }

    @staticmethod
    def check_plan(plan: object) -> None:
        """Raise ValueError, naming what is wrong, unless `plan` is what `plan()` returned of some run."""
        check_state("learning rate plan", plan, _PLAN, may_lack=("challenge",))
        assert isinstance(plan, Mapping)
        Anneal.from_dict(plan["anneal"])
        if plan["recovery"] is not None:
            Recovery.check_state(plan["recovery"])
        if plan.get("challenge") is not None:
            Challenge.check_state(plan["challenge"])

    def load_plan(self, plan: Mapping[str, Any]) -> None:
        """Go on with an anneal that was asked for before the run was interrupted.

        Raises ValueError, before any change, for anything but a plan.
        """
        self.check_plan(plan)
        if plan["finishing"]:
            self.anneal, self.finishing = Anneal.from_dict(plan["anneal"]), True

    def _widen_bounds(self) -> None:
        assert self.bounds is not None
        assert self.scheduler is not None
        self.bounds = (self.bounds[0], self.scheduler.config.lr_max)

    def _follow_anneal(self, step: int) -> None:
        if isinstance(self.scheduler, AutoLRScheduler):
            self.scheduler.annealing = self.anneal.begun(step + 1)
        if step == self.anneal.start < self.anneal.end:
            self._say_anneal(step, "end_of_run")

    def _say_anneal(self, step: int, reason: str) -> None:
        self._emit({"event": "adaptive_lr_anneal", "step": step, **self.anneal.to_dict(), "reason": reason})


_PLAN = {
    **{"base_lr": RATE, "bounds": optional(row(RATE, RATE)), "warmup_steps": COUNT, "first_step": COUNT},
    **{"anneal": MAPPING, "finishing": FLAG, "recovery": optional(MAPPING), "challenge": optional(MAPPING)},
}
