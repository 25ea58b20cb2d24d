"""From a run in progress to the checkpoint dict and back: what exact resume needs besides the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aios.auto_lr.loop.random_state import rng_state, set_rng_state
from aios.cli.hrm_hf.optimization import restore_optimizers
from aios.cli.hrm_hf.train_epoch import TrainingRun
from aios.engines.weight_average import WeightAverage, holds_average
from aios.settings.deepspeed import zero_stage


def collect_state(run: TrainingRun, data_id: str) -> dict[str, Any]:
    """The checkpoint dict; loadable with `weights_only=True`. `data_id` names the training data and its order."""
    return {
        "step": run.step,
        "optimizer": run.engine.optimizer_state(),
        "zero_stage": zero_stage(run.config),
        "scaler": run.scaler.state_dict(),
        "rng": rng_state(),
        "data": {"id": data_id, "samples": run.position * _sequences(run)},
        "config": run.config.to_dict(),
        "eval_id": run.eval_batches.id,
        "adaptive_lr": run.auto.state_dict(),
    }


def restore_state(run: TrainingRun, state: dict[str, Any], data_id: str) -> None:
    """Put a run back to where `state` was collected, but for its learning rate; other data start at their beginning."""
    restore_training(run, state)
    if state["data"]["id"] == data_id:
        run.position = -(-int(state["data"]["samples"]) // _sequences(run))


def restore_average(run: TrainingRun, folder: Path) -> None:
    """Put trained weights, beside the average that the model file of the checkpoint `folder` may hold, back in place.

    Where the run keeps no average, that of the checkpoint ends here.
    """
    ema = run.engine.ema
    if ema is None and holds_average(folder):
        ema = WeightAverage(run.model, 0.0)
    if ema is not None:
        ema.load(folder)


def restore_training(run: TrainingRun, state: dict[str, Any]) -> None:
    """Put optimizer, loss scale and random numbers back to where `state` was collected."""
    if state["optimizer"] is not None:
        restore_optimizers(run.optimizers, state["optimizer"], run.model)
    if state["scaler"] and run.scaler.is_enabled():
        run.scaler.load_state_dict(state["scaler"])
    set_rng_state(state["rng"])


def _sequences(run: TrainingRun) -> int:
    """Sequences that all workers together draw per micro-batch."""
    return run.train_batches.batch_size * run.train_batches.world_size
