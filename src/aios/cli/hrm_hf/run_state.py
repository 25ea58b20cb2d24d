"""From a run in progress to the checkpoint dict and back: what exact resume needs besides the weights."""

from __future__ import annotations

import random
from typing import Any

import torch

from aios.cli.hrm_hf.optimization import restore_optimizer
from aios.cli.hrm_hf.train_epoch import TrainingRun


def collect_state(run: TrainingRun, data_id: str) -> dict[str, Any]:
    """The checkpoint dict; loadable with `weights_only=True`. `data_id` names the training data and its order."""
    scheduler = run.lr.scheduler
    return {
        "step": run.step,
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.scaler.state_dict(),
        "rng": rng_state(),
        "data": {"id": data_id, "samples": run.position * run.config.batch_size},
        "config": run.config.to_dict(),
        "warmup_steps": run.lr.warmup_steps,
        "adaptive_lr": scheduler.state_dict() if scheduler is not None else None,
    }


def restore_state(run: TrainingRun, state: dict[str, Any], data_id: str) -> None:
    """Put a run back to where `state` was collected; on other data it starts at their beginning."""
    run.step = int(state["step"])
    restore_optimizer(run.optimizer, state["optimizer"])
    if state["scaler"] and run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])
    if state["data"]["id"] == data_id:
        run.position = -(-int(state["data"]["samples"]) // run.config.batch_size)
    set_rng_state(state["rng"])
    _restore_scheduler(run, state.get("adaptive_lr"))


def _restore_scheduler(run: TrainingRun, learned: dict[str, Any] | None) -> None:
    """Give the scheduler what it had learned, unless it is to start afresh or there is nothing."""
    if run.lr.scheduler is None or run.config.adaptive_lr_reset_state:
        return
    if learned is None:
        run.emit({"event": "adaptive_lr_state_missing", "step": run.step})
    else:
        run.lr.scheduler.load_state_dict(learned)


def rng_state() -> dict[str, Any]:
    """The state of every random number generator a training step may use."""
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what `rng_state` returned; CUDA generators only where there are as many devices as before."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
