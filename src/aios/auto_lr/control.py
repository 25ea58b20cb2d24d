"""The learning rate of a run, step by step: warm-up, then the scheduler or a constant, times the final anneal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Protocol

from aios.auto_lr.adaptive_lr import warmup_lr
from aios.auto_lr.anneal import Anneal
from aios.auto_lr.events import LogFn, foreign_lr, not_learning
from aios.auto_lr.grouped_scheduler import GroupedLRScheduler
from aios.auto_lr.learning import LESS, LearningWatch
from aios.auto_lr.param_groups import WrittenRates, read_learning_rates, set_learning_rate
from aios.auto_lr.plan import Plan
from aios.auto_lr.recovery import Recovery, Restorable
from aios.auto_lr.saved_state import COUNT, FLAG, LOSS, MAPPING, RATE, check_state, optional, row
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.search import bounds_around
from aios.auto_lr.trouble import TroubleMonitor


class Optimizer(Protocol):
    """All that is asked of an optimizer here."""

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Its groups, each with `lr` and `initial_lr`."""


class LearningRateControl:
    """Follows `plan` on `optimizer`; `log_fn` takes each event.

    Steps count from 1; the warm-up is the `warmup_steps` steps after `first_step`, and its last one runs at the
    scheduler's rate, which sees no loss of it: `base_lr`, or what that was cut to. `take_snapshot` copies the training
    state for rewinds (None: it cannot be copied); `step` is the one after which the run begins or goes on.
    """

    def __init__(
        self,
        plan: Plan,
        optimizer: Optimizer,
        log_fn: LogFn,
        take_snapshot: Callable[[], Restorable] | None = None,
        step: int = 0,
    ) -> None:
        self.plan = plan
        self.anneal = plan.anneal
        self.finishing = plan.finishing
        """Whether the run was asked to finish now."""
        self.base_lr = plan.base_lr
        """The rate that the search has found, or what `learning` has lowered it to."""
        self.bounds = plan.bounds
        """(lr_min, lr_max) as measured by a search."""
        self._step, self._log = step, log_fn
        self.scheduler = _scheduler(plan, optimizer, self._log_for_scheduler, step)
        self.recovery: Recovery | None = None
        self.learning: LearningWatch | None = None
        if plan.expected is not None:
            self.learning = LearningWatch(plan.expected, plan.first_step, plan.steps)
        self._optimizer = optimizer
        self._written = WrittenRates()
        self._told_foreign = False
        if isinstance(self.scheduler, AutoLRScheduler):
            monitor = TroubleMonitor(plan.config.trouble)
            self.recovery = Recovery(self.scheduler, monitor, take_snapshot, log_fn)
        if step > plan.first_step and self._annealing(step):
            self._say_anneal(step, "finish_now" if plan.finishing else "end_of_run")

    @property
    def skip_above(self) -> float:
        """Gradient norm above which the next update is to be skipped."""
        return self.recovery.skip_above if self.recovery is not None else inf

    def before_step(self, step: int) -> list[float]:
        """Set the LR for optimizer step `step`; returns the rate of each param group."""
        if self.plan.profile == "engine":
            return read_learning_rates(self._optimizer.param_groups)
        if self.scheduler is not None:
            self.scheduler.keep_own_lr()
        groups = self._optimizer.param_groups
        self._report_foreign_rates(step, groups)
        return self._written.write(groups, self._rate(step))

    def _rate(self, step: int) -> float:
        """The learning rate of base for optimizer step `step`."""
        plan, lr = self.plan, self.adaptive_lr  # a cut in the warm-up lowers what it rises to
        if step <= plan.warmup_end:
            lr = warmup_lr(lr, step - plan.first_step - 1, plan.warmup_steps)
        return lr * self.anneal.factor(step)

    def _log_for_scheduler(self, record: dict[str, Any]) -> None:
        """Log what the scheduler says.

        Its step counts from the end of the warm-up; during warm-up, step and rate are replaced by the current ones. It
        knows of no anneal, inside which a resumed run may begin.
        """
        if record["event"] == "adaptive_lr_init":
            record = {**record, "initial_lr": record["initial_lr"] * self.anneal.factor(self._step + 1)}
        if record["step"] > self._step:
            now: dict[str, float] = {"step": self._step, "from_step": self._step}
            now |= dict.fromkeys(("final_lr", "current_lr"), self._rate(self._step))
            record = {**record, **{key: value for key, value in now.items() if key in record}}
        self._log(record)

    def _report_foreign_rates(self, step: int, groups: list[dict[str, Any]]) -> None:
        """Say once that somebody else (a leftover scheduler, a callback) writes rates into the param groups."""
        foreign = [] if self._told_foreign else self._written.foreign()
        if not foreign:
            return
        own = set_learning_rate(groups, self.adaptive_lr)
        for lr, group, then in foreign:
            index = next((i for i, now in enumerate(groups) if now is group), None)
            if index is not None and lr != own[index]:  # and not what a decision since the last step has written
                self._told_foreign = True
                self._log(foreign_lr(step - 1, lr, then, group=index))
                return

    def after_step(self, step: int, loss: float, grad_norm: float | None, skip_above: float = inf) -> None:
        """Tell what optimizer step `step` cost; `skip_above` is what its gradient norm was held against.

        `grad_norm` is None for a step that says nothing about the gradient.

        Raises:
            RunError: when trouble persists after all that can be done about it.
        """
        self._count(step)
        if step > self.plan.warmup_end and self.scheduler is not None:
            self.scheduler.step(loss)
        if self.recovery is not None and grad_norm is not None:
            watch = self._watched(step)
            self.recovery.after_step(step, loss, grad_norm, skip_above, may_keep=watch is None or not watch.in_doubt)
        self._watch_learning(step, loss)

    def pass_step(self, step: int) -> None:
        """Count optimizer step `step`, which told nothing: it had no loss."""
        self._count(step)
        if step > self.plan.warmup_end and self.scheduler is not None:
            self.scheduler.start_later(1)

    def _count(self, step: int) -> None:
        """See what comes with the number of the step alone."""
        before, self._step = self._step, step
        if step == self.plan.warmup_end and self.plan.profile != "engine":
            self._log({"event": "warmup_complete", "step": step, "lr": self.adaptive_lr})
        self._follow_anneal(before, step)

    def _watched(self, step: int) -> LearningWatch | None:
        """What asks whether the run learns; None from the anneal on."""
        return None if self.anneal.begun(step + 1) else self.learning

    def _watch_learning(self, step: int, loss: float) -> None:
        """Log it if the run does not learn at the rate that was found; lower that rate if harm had ended the climb."""
        watch, recovery = self._watched(step), self.recovery
        if watch is None or recovery is None:
            return
        now = watch.observe(step, loss)
        if now is None:
            return
        since, expected, before = watch.since, watch.expected, self.adaptive_lr
        back = expected.harmed(now) and recovery.go_back(step)
        seen = f"loss {now:.4g} since step {since}, {expected.reference:.4g} at the end of the climb"
        reason = f"not_learning ({seen}{'; back to the last good state' if back else ''})"
        lower = self.plan.settings_from(before / LESS) if expected.broke else None
        lr = before if lower is None else lower.initial_lr
        self._log(
            not_learning(
                step,
                since=since,
                loss=now,
                reference=expected.reference,
                lr=lr,
                cause="no_gain",
                reason=reason,
                back=back,
                lowered=lower is not None,
            )
        )
        if lower is not None:
            self.base_lr, self.bounds = lr, bounds_around(before / LESS)
            recovery.scheduler.begin_at(lower, "learning_decrease", reason)
            watch.go_on(step)

    @property
    def adaptive_lr(self) -> float:
        """The rate of base that is followed, warm-up and anneal aside."""
        return self.plan.base_lr if self.scheduler is None else self.scheduler.current_lr

    def settled(self, step: int) -> bool:
        """Whether optimizer step `step` is past the warm-up and before the anneal."""
        return step > self.plan.warmup_end and not self.anneal.begun(step)

    def finish_now(self, step: int, reason: str = "finish_now") -> int:
        """Anneal to zero over the next tenth of the run, for `reason`; returns the step at which to end.

        Where somebody else sets the LR there is no anneal, and the run ends at once.
        """
        if self.plan.profile == "engine":
            self.anneal = replace(self.anneal, end=step)
            return step
        self.anneal, self.finishing = self.anneal.finish_now(step), True
        self._say_anneal(step, reason)
        return self.anneal.end

    def follow_finish(self, anneal: Anneal) -> None:
        """Take over the anneal that a finish somewhere else began: a recorded run's."""
        self.anneal, self.finishing = anneal, True

    def keep_snapshot(self, at_any_rate: bool = False) -> None:
        """Copy the current state for rewinds, if it is a good one or `at_any_rate`."""
        if self.recovery is not None:
            (self.recovery.keep_snapshot if at_any_rate else self.recovery.keep_checkpoint)()

    def forget_reference(self) -> None:
        """The weights are about to be replaced (merged with other workers'): a jump of the loss will be no trouble."""
        if self.scheduler is not None:
            self.scheduler.forget_reference()
        if self.recovery is not None:
            self.recovery.monitor.forget_level()

    def finish_from_best(self, step: int) -> None:
        """The best training state has been brought back: anneal from it, beginning at the current rates.

        The loss jumps back to what it was then, which is no trouble.
        """
        if self.scheduler is not None:
            self.scheduler.write_rates()
        self.forget_reference()
        self.finish_now(step, "overfitting")

    def state_dict(self) -> dict[str, Any]:
        """What was settled and learned, as plain values; the snapshot for rewinds is not among them."""
        plan = self.plan
        parts = {"scheduler": self.scheduler, "recovery": self.recovery, "learning": self.learning}
        return {
            "profile": plan.profile,
            "base_lr": self.base_lr,
            "bounds": list(self.bounds) if self.bounds is not None else None,
            "warmup_steps": plan.warmup_steps,
            "first_step": plan.first_step,
            "lengthened_at": plan.lengthened_at,
            "start_loss": plan.start_loss,
            "anneal": self.anneal.to_dict(),
            "finishing": self.finishing,
            **{name: part.state_dict() if part is not None else None for name, part in parts.items()},
        }

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is what `state_dict()` returned of some run."""
        lacking = ("learning", "lengthened_at", "start_loss")
        saved = check_state("learning rate state", state, _STATE, may_lack=lacking)
        Anneal.from_dict(saved["anneal"])
        bounds = saved["bounds"]
        if bounds is not None and bounds[0] > bounds[1]:
            raise ValueError(f"learning rate state: bounds = {list(bounds)}: the first must not be above the second")
        checks: dict[str, Callable[[Any], None]] = {
            "scheduler": AutoLRScheduler.check_state,
            "recovery": Recovery.check_state,
            "learning": LearningWatch.check_state,
        }
        for name, check in checks.items():
            if saved.get(name) is not None:
                check(saved[name])

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Go on, after optimizer step `step`, with what `state_dict` returned; the plan is `resumed_plan`'s.

        Where the profile has changed since, what the other one knew is left out.
        """
        if self.scheduler is None:
            return
        if state["scheduler"] is None:
            self._log({"event": "adaptive_lr_state_missing", "step": step})
        else:
            self.scheduler.load_state_dict(state["scheduler"])
            if self.scheduler.total_steps == 0:  # it has not begun, and the warm-up may have another length now
                self.scheduler.start_later(max(step, self.plan.warmup_end) - self.scheduler.start_step)
            if self.plan.rises_again:
                self.scheduler.start_later(self.plan.warmup_steps)
        if self.recovery is not None and state["recovery"] is not None:
            self.recovery.load_state_dict(state["recovery"])
        if self.recovery is not None and state.get("learning") is not None:
            self.learning = LearningWatch.from_state(state["learning"], self.plan.steps)

    def _follow_anneal(self, before: int, step: int) -> None:
        """Say that it begins where it has begun since step `before`; a step between may have told nothing."""
        if self.scheduler is not None:
            self.scheduler.annealing = self.anneal.begun(step + 1)
        if self._annealing(step) and not self._annealing(before):
            self._say_anneal(step, "end_of_run")

    def _annealing(self, step: int) -> bool:
        """Whether what comes after `step` is annealed."""
        return self.anneal.begun(step + 1) and self.anneal.start < self.anneal.end

    def _say_anneal(self, step: int, reason: str) -> None:
        self._log({"event": "adaptive_lr_anneal", "step": step, **self.anneal.to_dict(), "reason": reason})


_STATE = {
    "base_lr": RATE,
    "bounds": optional(row(RATE, RATE)),
    "warmup_steps": COUNT,
    "first_step": COUNT,
    "lengthened_at": COUNT,
    "start_loss": optional(LOSS),
    "anneal": MAPPING,
    "finishing": FLAG,
    **dict.fromkeys(("scheduler", "recovery", "learning"), optional(MAPPING)),
}


def _scheduler(plan: Plan, optimizer: Optimizer, log_fn: LogFn, step: int) -> GroupedLRScheduler | None:
    """The scheduler of the profile; it announces itself at `step`, with what is left of the warm-up, and counts from
    where that hands over."""
    if plan.profile not in ("auto", "rules"):
        return None
    _announce_moe(plan, log_fn, step)
    build: Callable[..., GroupedLRScheduler] = GroupedLRScheduler
    if plan.profile == "auto":
        build = partial(AutoLRScheduler, rules=plan.rules, start_loss=plan.start_loss)
    return build(
        optimizer,
        plan.settings,
        plan.use_moe,
        log_fn,
        groups=plan.config.groups,
        start_step=max(step, plan.warmup_end),
        announced_at=step,
        warmup_steps=max(0, plan.warmup_end - step),
    )


def _announce_moe(plan: Plan, log_fn: LogFn, step: int) -> None:
    """Say, when a run begins, that a mixture of experts starts at another rate than was asked for, or than is usual."""
    if step > plan.first_step:
        return
    for moved in (plan.preflight, plan.lifted):
        if moved is not None:
            rates = {"original_lr": moved[0], "adjusted_lr": plan.base_lr}
            log_fn({"event": "moe_lr_adjustment", "step": step, **rates, "reason": moved[1]})
