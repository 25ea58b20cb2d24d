"""`AutoLR`: the whole of it for any torch loop; nothing of the HRM is imported."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig
from aios.auto_lr.anneal import DEFAULT_FRACTION, Anneal
from aios.auto_lr.arguments import check_trains, loss_number, whole_steps
from aios.auto_lr.challenge import Challenge, ChallengeConfig, challenge_after
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.loop.readback import Readback
from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.loop.trial import ClosureTrial, search_and_restore, train_and_restore
from aios.auto_lr.loop.update import check_dense, clip_and_update
from aios.auto_lr.param_groups import GroupSettings, start_scales, write_scales
from aios.auto_lr.recovery import Recovery
from aios.auto_lr.rules import NoiseRules
from aios.auto_lr.saved_state import COUNT, MAPPING, RATE, check_state, optional, row
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.search import RangeTestConfig, RangeTestResult
from aios.auto_lr.trouble import TroubleConfig, TroubleMonitor
from aios.auto_lr.verification import Expectation

WARMUP_FRACTION = 0.05
"""Part of the steps that the warm-up takes after a search."""
UNSEARCHED_INCREASE = 1.3
"""Factor of an increase where no search said how high the LR may go: it may begin orders of magnitude too low."""

Forward = Callable[[int], Tensor]
"""The training loss on the batch of a number, forward only; a pure function of number and weights."""


@dataclass(frozen=True)
class AutoLRConfig:
    """How `AutoLR` trains; every part can be turned off or tuned. ValueError names a field out of its range."""

    warmup_fraction: float = WARMUP_FRACTION
    """Part of the steps (after the search) in which the LR rises linearly."""
    anneal_fraction: float = DEFAULT_FRACTION
    """Last part of the steps, in which the LR goes linearly to zero; 0: never."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this global L2 norm."""
    range_test: RangeTestConfig = field(default_factory=RangeTestConfig)
    """The search."""
    rules: NoiseRules = field(default_factory=NoiseRules)
    """The decisions between warm-up and anneal."""
    trouble: TroubleConfig = field(default_factory=TroubleConfig)
    """When to skip, cut, rewind and stop."""
    challenge: ChallengeConfig | None = field(default_factory=ChallengeConfig)
    """When a higher rate is taken that was tried after the warm-up; None: none is tried."""
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    """Settings of param groups by role: a group's `role` entry, else its `name`."""

    def __post_init__(self) -> None:
        for name in ("warmup_fraction", "anneal_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)!r} is not allowed: must be from 0 to 1")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm = {self.max_grad_norm!r} is not allowed: must be > 0")


class _Plan(NamedTuple):
    """What a run is told once, when its training begins."""

    base_lr: float
    bounds: tuple[float, float] | None
    """Of the LR, as the search found them; None without a suggestion."""
    warmup_steps: int
    first_step: int
    """Steps done before training began: those of the search."""


class _Launched(NamedTuple):
    step: int
    skip_above: float


class AutoLR:
    """Trains `steps` optimizer steps at a learning rate it finds and follows itself.

    Call `search(forward)` once, before the first `step`, to find where to begin (leave it out to begin at the
    optimizer's LR); then, until `finished`: `forward(auto.batch).backward()` and `auto.step(loss)`, which clips,
    updates or skips, and sets the LR of the next step. `log_fn` receives every event as a dict. On CUDA a step's
    numbers are read one step late, so that the host never waits.

    Raises ValueError for `steps` that are no whole number from 1 on, an optimizer that trains nothing of the model,
    a role in `config.groups` that no param group has or (from `search` or `step`) a sparse gradient, and RunError
    (from `step`) when the run cannot be saved.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        steps: int,
        config: AutoLRConfig | None = None,
        log_fn: Callable[[dict[str, Any]], None] | None = None,
        use_moe: bool = False,
    ) -> None:
        self.steps = whole_steps(steps)
        self.model, self.optimizer, self.use_moe = model, optimizer, use_moe
        self.config = config or AutoLRConfig()
        scales = start_scales(optimizer.param_groups, self.config.groups)
        check_trains(model, optimizer)
        self.step_count = 0
        """Optimizer steps' worth of work done, the search included."""
        self.batch = 0
        """Number of the next batch to train on."""
        self.control: LearningRateControl | None = None
        """Warm-up, scheduler and recovery; None until the first step."""
        self._log = log_fn or (lambda record: None)
        self._device = next(model.parameters()).device
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=False)
        self._readback: Readback[_Launched] = Readback(self._device)
        self._found: RangeTestResult | None = None
        self._trial: ClosureTrial | None = None  # trains on any batch, once `search` was told how
        self._plan: _Plan | None = None
        self._end = self.steps
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))  # a tensor LR is changed in place later
        write_scales(optimizer.param_groups, scales)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step_count >= self._end

    def finish_now(self) -> None:
        """Anneal to zero over the next tenth of the steps, and be finished then.

        Raises ValueError before the first step: there is nothing to finish.
        """
        if self.control is None:
            raise ValueError("finish_now comes after the first step: training has not begun")
        self._end = self.control.finish_now(self.step_count)

    def state_dict(self) -> dict[str, Any]:
        """All that was found and learned, as plain values (loads with `weights_only=True`); not weights and optimizer.

        Raises ValueError before the first step: there is nothing to go on from yet.
        """
        if self.control is None or self._plan is None or self.control.scheduler is None:
            raise ValueError("state_dict comes after the first step: training has not begun")
        self._follow(self._readback.flush())
        if self.control.recovery is not None and self.control.recovery.healthy:
            self.control.recovery.keep_snapshot()  # so that a run resumed here goes back to where this one would
        plan = list(self._plan._replace(bounds=self.control.bounds))
        counts = {"step_count": self.step_count, "batch": self.batch, "plan": plan}
        return {**counts, "control": self.control.plan(), "scheduler": self.control.scheduler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], forward: Forward | None = None) -> None:
        """Go on from `state_dict()`; load model and optimizer first. Nothing is searched again.

        With the `forward` that `search` was given, higher rates are tried as they would have been. Raises ValueError
        when training has begun, and, naming what is wrong and before any change, for what no `state_dict()` returned.
        """
        if self.control is not None:
            raise ValueError("load_state_dict comes before the first step: training has begun")
        plan = _check_state(state)
        control = self._control_of(plan)
        self.step_count, self.batch = state["step_count"], state["batch"]
        control.load_plan(state["control"])
        assert control.scheduler is not None
        assert control.recovery is not None
        control.scheduler.load_state_dict(state["scheduler"])
        control.recovery.load_state_dict(state["control"]["recovery"])
        control.recovery.keep_snapshot()
        if forward is not None:
            self._trial = ClosureTrial(self.model, self.optimizer, forward, self.config.max_grad_norm)
        learned, settings = state["control"].get("challenge"), self.config.challenge  # not in states from before it
        if learned is not None and settings is not None:
            assert isinstance(control.scheduler, AutoLRScheduler)
            control.challenge = Challenge.from_state(control.scheduler, learned, self._log, settings)
        if control.finishing:
            self._end = control.anneal.end

    def search(self, forward: Forward) -> RangeTestResult:
        """Find the LR on the first batches and take everything back; the work counts as steps.

        Raises ValueError when training has begun. An error from `forward` surfaces after the state is restored.
        """
        if self.control is not None:
            raise ValueError("search comes before the first step: training has begun")
        snapshot = Snapshot(self.model, self.optimizer)
        self._trial = ClosureTrial(self.model, self.optimizer, forward, self.config.max_grad_norm)
        found = search_and_restore(self._trial, snapshot, self.steps, self.batch, self.config.range_test)
        self.step_count += found.steps
        self._found = found
        self._log({"event": "adaptive_lr_search", "step": self.step_count, **search_record(found)})
        return found

    def step(self, loss: Tensor | float) -> float:
        """Clip, update (or skip) and follow: `loss` is that of the batch whose gradients were just computed.

        Returns the LR of this update. Raises ValueError, before any change, when all steps are done and for a loss
        that is not one number.
        """
        if self.finished:
            raise ValueError(
                f"all {self._end} steps are done: loop until `finished`, or build an AutoLR of more steps and "
                "give it this one's state_dict()"
            )
        loss = loss_number(loss, self._device)
        control = self.control or self._begin()
        control.before_step(self.step_count + 1)
        skip_above, lr = control.skip_above, float(self.optimizer.param_groups[0]["lr"])
        norm = clip_and_update(
            self.model, self.optimizer, self._scaler, loss, self.config.max_grad_norm, skip_above
        )  # fmt: skip
        self.step_count += 1
        self.batch += 1
        self._readback.push(_Launched(self.step_count, skip_above), torch.stack([loss.float(), norm.float()]))
        self._follow(self._readback.flush() if self.finished else self._readback.ready())
        self.step_count += self._try_higher(control)
        return lr

    def _try_higher(self, control: LearningRateControl) -> int:
        """Steps that trying a higher rate has taken, 0 where it is not to be tried."""
        trial = self._trial
        if trial is None:
            return 0

        def train(lr: float, steps: int) -> list[float]:
            return train_and_restore(trial, Snapshot(self.model, self.optimizer), self.batch, lr, steps)

        return control.try_higher(self.step_count, self._end, lambda: self._follow(self._readback.flush()), train)

    def _follow(self, done: list[tuple[_Launched, list[float]]]) -> None:
        assert self.control is not None
        for launched, (value, grad_norm) in done:
            self.control.after_step(launched.step, value, grad_norm, launched.skip_above)

    def _begin(self) -> LearningRateControl:
        """Settle what the search, or the optimizer's LR, says for the steps that are left."""
        check_dense(self.model)
        base_lr, bounds = float(self.optimizer.param_groups[0]["initial_lr"]), None
        found = self._found
        if found is not None and found.suggestion is not None:
            base_lr, bounds = found.suggestion, found.bounds
        warmup_steps = int(self.config.warmup_fraction * (self.steps - self.step_count))
        control = self._control_of(_Plan(base_lr, bounds, warmup_steps, self.step_count))
        assert control.recovery is not None
        control.recovery.keep_snapshot()
        if found is not None and bounds is not None:
            control.recovery.expectation = Expectation.from_search(found, self.config.range_test.clear_drop)
            control.challenge = self._challenge_after(found, control)
        return control

    def _challenge_after(self, found: RangeTestResult, control: LearningRateControl) -> Challenge | None:
        if self.config.challenge is None:
            return None
        assert isinstance(control.scheduler, AutoLRScheduler)
        budget = self.config.range_test.budget
        return challenge_after(found, control.scheduler, self.steps, budget, self._log, self.config.challenge)

    def _control_of(self, plan: _Plan) -> LearningRateControl:
        settings = scheduler_settings(plan.base_lr, self.steps - plan.first_step, plan.bounds)
        scheduler = AutoLRScheduler(
            self.optimizer, settings, self.use_moe, self._log, groups=self.config.groups,
            start_step=plan.first_step + plan.warmup_steps, warmup_steps=plan.warmup_steps,
            rules=noise_rules(self.config.rules, self.steps, searched=plan.bounds is not None),
        )  # fmt: skip
        recovery = Recovery(
            scheduler, TroubleMonitor(self.config.trouble), lambda: Snapshot(self.model, self.optimizer), self._log
        )
        self._plan, self.control = plan, LearningRateControl(
            self.optimizer, scheduler.config.initial_lr, plan.warmup_steps, scheduler, self._log,
            first_step=plan.first_step, anneal=Anneal.of_run(self.steps, self.config.anneal_fraction),
            recovery=recovery, bounds=plan.bounds,
        )  # fmt: skip
        return self.control


def _check_state(state: Any) -> _Plan:
    """The plan in a state of `AutoLR`; ValueError, naming what is wrong, unless all of it can be gone on from."""
    check_state("AutoLR state", state, _STATE)
    LearningRateControl.check_plan(state["control"])
    if state["control"]["recovery"] is None:
        raise ValueError("AutoLR state: control has no recovery: is it the state_dict() of an AutoLR?")
    AutoLRScheduler.check_state(state["scheduler"])
    base_lr, bounds, warmup_steps, first_step = state["plan"]
    if first_step > state["step_count"]:
        raise ValueError(f"AutoLR state: plan begins at step {first_step}, after step_count = {state['step_count']}")
    if bounds is not None and bounds[0] > bounds[1]:
        raise ValueError(f"AutoLR state: plan has bounds {list(bounds)}: the first must not be above the second")
    return _Plan(base_lr, tuple(bounds) if bounds is not None else None, warmup_steps, first_step)


_STATE = {
    **{"step_count": COUNT, "batch": COUNT, "control": MAPPING, "scheduler": MAPPING},
    "plan": row(RATE, optional(row(RATE, RATE)), COUNT, COUNT),
}


def scheduler_settings(base_lr: float, steps: int, bounds: tuple[float, float] | None) -> AdaptiveLRConfig:
    """Settings for `steps` of training in the bounds that the search found; without, with larger increases."""
    if bounds is None:
        return AdaptiveLRConfig.from_base_lr(base_lr, steps, increase_factor=UNSEARCHED_INCREASE)
    return AdaptiveLRConfig.from_base_lr(base_lr, steps, lr_min=bounds[0], lr_max=bounds[1])


def noise_rules(rules: NoiseRules, steps: int, searched: bool = True) -> NoiseRules:
    """The rules for a run of `steps`: a plateau is judged over a tenth of it.

    Where no search gave a suggestion, any fall that stands out from the noise, however small, may raise the LR:
    far too low a rate never makes the loss fall by much in one window.
    """
    raise_gain = rules.raise_gain if searched else 0.0
    return replace(rules, raise_gain=raise_gain, plateau_steps=min(rules.plateau_steps, max(10, steps // 10)))


def search_record(found: RangeTestResult) -> dict[str, Any]:
    """The `adaptive_lr_search` event without event name and step."""
    curve = [[p.lr, p.loss if math.isfinite(p.loss) else None, p.reference] for p in found.points]
    bounds = {"lr_min": found.lr_min, "lr_max": found.lr_max}
    return {"suggestion": found.suggestion, **bounds, "reason": found.reason, "used_steps": found.steps, "curve": curve}
