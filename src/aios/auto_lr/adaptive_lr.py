"""The one door to the scheduler's own file, which stands alone where the contract put it."""

from __future__ import annotations

from aios.cli.hrm_hf.adaptive_lr import (
    DEFAULT_LR,
    AdaptiveLRConfig,
    AdaptiveLRScheduler,
    LossMetrics,
    LRDecision,
    adjust,
    default_warmup_steps,
    default_window_size,
    preflight_moe_lr,
    warmup_lr,
)

__all__ = [
    "DEFAULT_LR",
    "AdaptiveLRConfig",
    "AdaptiveLRScheduler",
    "LRDecision",
    "LossMetrics",
    "adjust",
    "default_warmup_steps",
    "default_window_size",
    "preflight_moe_lr",
    "warmup_lr",
]
