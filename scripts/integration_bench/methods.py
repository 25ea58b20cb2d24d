"""What is compared under each framework, and the rates that it is compared at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler
from transformers import get_cosine_schedule_with_warmup

from integration_bench.problem import Data

DEFAULT = "default"
"""What the framework, or the example its users begin with, does by itself."""
COSINE = "cosine"
GREEDY = "greedy"
SCHEDULE_FREE = "schedule-free"
FINDER = "lr_find, cosine"
"""A cosine at the rate of the framework's own range test."""
OURS = "AutoLR"
COSINE_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
"""That the cosine is tuned over."""
FREE_LR = 2.5e-3
"""What the README of schedule_free names for AdamW."""
GREEDY_LR = 1e-3
"""In the middle of what GreedyLR may reach from there."""
WARMUP = 0.05
"""Part of a cosine's run that warms up."""
CLIP_NORM = 1.0
"""Trainer's default, and given to all others."""

Train = Callable[[str, float, nn.Module, Data, int], None]
"""(method, learning rate where the method takes one, model, data, steps): trains the model."""


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> LRScheduler:
    """A cosine over `steps` with its warm-up, as transformers builds it."""
    schedule: LRScheduler = get_cosine_schedule_with_warmup(optimizer, round(WARMUP * steps), steps)
    return schedule


def trainer_options(method: str, lr: float, steps: int) -> dict[str, Any]:
    """Options of a `Trainer` for a method; those of `DEFAULT` and `OURS` are its own."""
    if method == COSINE:
        return {"learning_rate": lr, "lr_scheduler_type": "cosine", "warmup_steps": round(WARMUP * steps)}
    if method == GREEDY:  # it is told of evaluations alone
        bounds = {"min_lr": lr / 100, "max_lr": lr * 20}
        often = {"eval_strategy": "steps", "eval_steps": max(1, steps // 20)}
        return {"learning_rate": lr, "lr_scheduler_type": "greedy", "lr_scheduler_kwargs": bounds, **often}
    if method == SCHEDULE_FREE:
        return {"learning_rate": lr, "optim": "schedule_free_adamw", "lr_scheduler_type": "constant"}
    return {}
