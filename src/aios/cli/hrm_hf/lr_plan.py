"""The learning rate of a training run: found by a search at its start, or gone on with from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aios.auto_lr.search import Found
from aios.auto_lr.state_forms import read_checkpoint
from aios.cli.hrm_hf.train_epoch import RunTrial, TrainingRun
from aios.errors import UserError
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import copying_obstacle, has_scheduler


def will_search(config: TrainingConfig, state: Mapping[str, Any] | None) -> bool:
    """Whether a run that starts from `state` begins with a search: under `auto`, before its first step."""
    wanted = config.auto_adjust_lr and config.adaptive_lr_profile == "auto" and (state is None or state["step"] == 0)
    return wanted and not has_scheduler(config) and copying_obstacle(config) is None


def begin_learning_rate(
    run: TrainingRun, state: Mapping[str, Any] | None, save: Callable[[], object] | None = None
) -> None:
    """Search, or go on from `state`: whatever comes before the next step.

    `save` is called before a search, so that a run killed in it can be resumed, too.
    """
    if will_search(run.config, state):
        if save is not None:
            save()
        search(run)
    elif state is not None and state["step"] > 0:
        learned, forget = still_comparable(learned_state(state), state, run.config), run.config.adaptive_lr_reset_state
        run.auto.load_state_dict(learned, RunTrial(run), forget=forget)


def search(run: TrainingRun) -> Found | None:
    """Have the LR found, now or by the steps to come."""
    run.model.train()
    return run.auto.search(RunTrial(run))


def look(run: TrainingRun) -> Found:
    """Find the LR as a run would and take everything back."""
    run.model.train()
    return run.auto.look(RunTrial(run))


_EVALUATED_BY = (
    "eval_file",
    "eval_batches",
    "dataset_file",
    "model",
    "max_seq_len",
    "batch_size",
    "model_dtype",
    "amp",
)
"""Settings that an evaluation loss depends on, besides the weights."""


def still_comparable(learned: Mapping[str, Any], state: Mapping[str, Any], config: TrainingConfig) -> Mapping[str, Any]:
    """`learned`, of the checkpoint dict `state`; without its evaluations where those of `config` are other ones."""
    before, now = state["config"], config.to_dict()
    same = all(before.get(name) == now[name] for name in _EVALUATED_BY)
    return learned if same else {**learned, "evaluations": None}


def learned_state(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the checkpoint dict `state` holds for `AutoLR`."""
    try:
        return read_checkpoint(state)
    except ValueError as error:
        raise UserError(
            f"What the checkpoint of step {state['step']} knows of the learning rate cannot be used ({error}); move "
            "its folder away to resume from the one before."
        ) from error
