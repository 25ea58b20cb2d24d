"""The best evaluation of a run: what its checkpoint knows of it, and the way back to its training state.

That state is a checkpoint like any other, but for that it is never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.overfit import Evaluation, OverfitWatch
from aios.auto_lr.state_forms import read_checkpoint
from aios.cli.hrm_hf.model_setup import load_weights
from aios.cli.hrm_hf.parallel_state import split_state
from aios.cli.hrm_hf.run_state import restore_average, restore_training
from aios.cli.hrm_hf.train_epoch import TrainingRun
from aios.runs.checkpoints import checkpoint_path, find_damage, load_state
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import zero_stage
from aios.settings.learning_rate import auto_lr_config


def go_back(run: TrainingRun, step: int) -> bool:
    """Bring weights, optimizer, loss scale and random numbers back to the checkpoint of `step`; all workers call it.

    The count of steps and the place in the data go on, as after a rewind. Returns whether the checkpoint is there,
    whole, and of a model trained in the same way.
    """
    folder = checkpoint_path(run.config.brain_dir, step)
    fits = find_damage(folder) is None
    state = load_state(folder) if fits else {}
    fits = fits and _was_trained_alike(state, run.config)
    if run.workers.mean(float(fits)) < 1:
        return False
    if run.engine.writes_parts:
        run.engine.load(folder)
    else:
        load_weights(run.model, folder)
        restore_average(run, folder)
    restore_training(run, state)
    return True


def _was_trained_alike(state: Mapping[str, Any], config: TrainingConfig) -> bool:
    same_adapters = bool(state["config"].get("use_peft")) == config.use_peft
    return same_adapters and state.get("zero_stage", 0) == zero_stage(config)


def best_saved(state: Mapping[str, Any], config: TrainingConfig) -> Evaluation | None:
    """The best evaluation that the checkpoint dict `state` knows of; None where `config` does not heed them."""
    watch = _watch(_learned(state))
    return watch.best if watch is not None and auto_lr_config(config).overfit_policy != "ignore" else None


def ended_by_overfitting(state: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Whether the run of `state` had ended because its evaluation loss had turned up, and is asked for no more."""
    learned = _learned(state)
    watch, control = _watch(learned), learned["control"]
    if watch is None or not watch.finishing or control is None or auto_lr_config(config).overfit_policy != "finish":
        return False
    return control["anneal"]["end"] <= state["step"] and config.steps <= state["config"]["steps"]


def _watch(learned: Mapping[str, Any]) -> OverfitWatch | None:
    saved = learned.get("evaluations")
    return OverfitWatch.from_state(saved) if saved is not None else None


def _learned(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return read_checkpoint(split_state(dict(state), 0, 1))  # of independent workers all know the same best
