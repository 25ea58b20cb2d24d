"""`AutoLR`: the whole of it for any torch loop; nothing of the HRM is imported."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from aios.auto_lr.anneal import DEFAULT_FRACTION, Anneal
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.readback import Readback
from aios.auto_lr.recovery import Recovery
from aios.auto_lr.rules import NoiseRules
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.snapshot import Snapshot
from aios.auto_lr.trial import ClosureTrial, search_and_restore
from aios.auto_lr.trouble import TroubleConfig, TroubleMonitor
from aios.auto_lr.update import clip_and_update
from aios.auto_lr.verification import Expectation
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig
from aios.cli.hrm_hf.lr_range_test import RangeTestConfig, RangeTestResult

WARMUP_FRACTION = 0.05
"""Part of the steps that the warm-up takes after a search."""
UNSEARCHED_INCREASE = 1.3
"""Factor of an increase where no search said how high the LR may go: it may begin orders of magnitude too low."""

Forward = Callable[[int], Tensor]
"""The training loss on the batch of a number, forward only; a pure function of number and weights."""


@dataclass(frozen=True)
class AutoLRConfig:
    """How `AutoLR` trains; every part can be turned off or tuned."""

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


class _Launched(NamedTuple):
    step: int
    skip_above: float


class AutoLR:
    """Trains `steps` optimizer steps at a learning rate it finds and follows itself.

    Call `search(forward)` once, before the first `step`, to find where to begin (leave it out to begin at the
    optimizer's LR); then, until `finished`: `forward(auto.batch).backward()` and `auto.step(loss)`, which clips,
    updates or skips, and sets the LR of the next step. `log_fn` receives every event as a dict. On CUDA a step's
    numbers are read one step late, so that the host never waits.

    Raises ValueError for `steps` below 1, and RunError (from `step`) when the run cannot be saved.
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
        if steps < 1:
            raise ValueError(f"steps = {steps} is not allowed: must be >= 1")
        self.model, self.optimizer, self.steps, self.use_moe = model, optimizer, steps, use_moe
        self.config = config or AutoLRConfig()
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
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", float(group["lr"]))  # a tensor LR is changed in place later

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step_count >= self.steps

    def search(self, forward: Forward) -> RangeTestResult:
        """Find the LR on the first batches and take everything back; the work counts as steps.

        Raises ValueError when training has begun. An error from `forward` surfaces after the state is restored.
        """
        if self.control is not None:
            raise ValueError("search comes before the first step: training has begun")
        snapshot = Snapshot(self.model, self.optimizer)
        trial = ClosureTrial(self.model, self.optimizer, forward, self.config.max_grad_norm)
        found = search_and_restore(trial, snapshot, self.steps, self.batch, self.config.range_test)
        self.step_count += found.steps
        self._found = found
        self._log({"event": "adaptive_lr_search", "step": self.step_count, **search_record(found)})
        return found

    def step(self, loss: Tensor) -> float:
        """Clip, update (or skip) and follow: `loss` is that of the batch whose gradients were just computed.

        Returns the LR of this update.
        """
        control = self.control or self._begin()
        control.before_step(self.step_count + 1)
        skip_above, lr = control.skip_above, float(self.optimizer.param_groups[0]["lr"])
        loss = loss.detach()
        norm = clip_and_update(
            self.model, self.optimizer, self._scaler, loss, self.config.max_grad_norm, skip_above
        )  # fmt: skip
        self.step_count += 1
        self.batch += 1
        self._readback.push(_Launched(self.step_count, skip_above), torch.stack([loss.float(), norm.float()]))
        due = self._readback.flush() if self.finished else self._readback.ready()
        for launched, (value, grad_norm) in due:
            control.after_step(launched.step, value, grad_norm, launched.skip_above)
        return lr

    def _begin(self) -> LearningRateControl:
        left = self.steps - self.step_count
        warmup = int(self.config.warmup_fraction * left)
        searched = self._found is not None and self._found.suggestion is not None
        settings = scheduler_settings(float(self.optimizer.param_groups[0]["initial_lr"]), left, self._found)
        scheduler = AutoLRScheduler(
            self.optimizer, settings, self.use_moe, self._log, start_step=self.step_count + warmup, warmup_steps=warmup,
            rules=noise_rules(self.config.rules, self.steps, searched),
        )  # fmt: skip
        recovery = Recovery(
            scheduler, TroubleMonitor(self.config.trouble), lambda: Snapshot(self.model, self.optimizer), self._log
        )
        recovery.keep_snapshot()
        if self._found is not None and searched:
            recovery.expectation = Expectation.from_search(self._found, self.config.range_test.clear_drop)
        anneal = Anneal.of_run(self.steps, self.config.anneal_fraction)
        self.control = LearningRateControl(
            self.optimizer, scheduler.config.initial_lr, warmup, scheduler, self._log,
            first_step=self.step_count, anneal=anneal, recovery=recovery,
        )  # fmt: skip
        return self.control


def scheduler_settings(base_lr: float, steps: int, found: RangeTestResult | None) -> AdaptiveLRConfig:
    """Settings for `steps` of training from what the search found, else from `base_lr` with larger increases."""
    if found is None or found.suggestion is None or found.bounds is None:
        return AdaptiveLRConfig.from_base_lr(base_lr, steps, increase_factor=UNSEARCHED_INCREASE)
    low, high = found.bounds
    return AdaptiveLRConfig.from_base_lr(found.suggestion, steps, lr_min=low, lr_max=high)


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
