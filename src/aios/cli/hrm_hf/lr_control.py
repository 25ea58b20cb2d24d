"""The learning rate of a run, step by step: linear warm-up, then the adaptive scheduler or a constant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRScheduler, warmup_lr
from aios.cli.hrm_hf.optimization import set_learning_rate

Emit = Callable[[dict[str, Any]], None]


class LearningRateControl:
    """Warm-up to `base_lr`, then hand over to `scheduler` (None: stay at `base_lr`).

    Steps count from 1: step `warmup_steps` is the last of the warm-up and runs at `base_lr`. The scheduler sees no
    loss of the warm-up, and its events carry the global step because it starts counting at `warmup_steps`.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        base_lr: float,
        warmup_steps: int,
        scheduler: AdaptiveLRScheduler | None,
        emit: Emit,
    ) -> None:
        self.base_lr = base_lr
        self.warmup_steps = warmup_steps
        self.scheduler = scheduler
        self._optimizer = optimizer
        self._emit = emit

    def before_step(self, step: int) -> None:
        """Set the LR for optimizer step `step`; in the adaptive phase the scheduler has already set it."""
        if step <= self.warmup_steps:
            set_learning_rate(self._optimizer, warmup_lr(self.base_lr, step - 1, self.warmup_steps))
        elif self.scheduler is None:
            set_learning_rate(self._optimizer, self.base_lr)

    def after_step(self, step: int, loss: float) -> None:
        """Tell what optimizer step `step` cost."""
        if step == self.warmup_steps:
            self._emit({"event": "warmup_complete", "step": step, "lr": self.base_lr})
        if step > self.warmup_steps and self.scheduler is not None:
            self.scheduler.step(loss)
