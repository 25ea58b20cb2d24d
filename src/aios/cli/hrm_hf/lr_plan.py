"""The learning rate of a training run: found by a search at its start, or gone on with from its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aios.auto_lr.search import SHORTEST_RUN, Found
from aios.auto_lr.state_forms import read_checkpoint
from aios.cli.hrm_hf.train_epoch import TrainingRun, run_trial
from aios.run_view.logged_settings import same_evaluation, same_text
from aios.settings.config import TrainingConfig

HIGHEST_USUAL_LR = 0.1
"""A step of AdamW moves a weight by up to the learning rate: above, every step overwrites what was learned."""


def begin_learning_rate(
    run: TrainingRun, state: Mapping[str, Any] | None, save: Callable[[], object] | None = None
) -> None:
    """Search, or go on from `state`: whatever comes before the next step.

    `save` is called before a search, so that a run killed in it can be resumed, too.
    """
    step = int(state["step"]) if state is not None else 0
    searches = step == 0 and run.auto.obstacle is None
    _say_of_asked_lr(run, state, searches)
    if searches:
        if save is not None:
            save()
        run.model.train()
        run.auto.search(run_trial(run))
    elif state is not None and step > 0:
        learned = still_comparable(read_checkpoint(state), state, run)
        run.auto.load_state_dict(learned, forget=run.config.adaptive_lr_reset_state)


def _say_of_asked_lr(run: TrainingRun, state: Mapping[str, Any] | None, searches: bool) -> None:
    """Log that a `--lr` is not used, or is although it should not be."""
    unused, absurd = unused_lr(run.config, state, searches), absurd_lr(run.config)
    if (reason := unused or absurd) is not None:
        told = {"lr": run.config.lr, "used": unused is None, "reason": reason}
        run.log_fn({"event": "lr_asked", "step": state["step"] if state is not None else 0, **told})


def unused_lr(config: TrainingConfig, state: Mapping[str, Any] | None, searches: bool) -> str | None:
    """Why a run that starts from `state` does not train at the `--lr` it was given; None where it does, or has none.

    `searches`: whether it begins with a search, if it is long enough for one.
    """
    if config.lr is None:
        return None
    if searches and config.steps >= SHORTEST_RUN:
        return "a search finds the rate; it would count with --no-auto-adjust-lr, or if none were found"
    if state is None or state["step"] == 0 or not config.auto_adjust_lr or config.adaptive_lr_reset_state:
        return None
    if state["config"].get("lr") == config.lr or not state["config"].get("auto_adjust_lr"):
        return None
    return "the resumed run goes on at the rate it had come to; it would count with --no-auto-adjust-lr"


def absurd_lr(config: TrainingConfig) -> str | None:
    """What to say of a `--lr` that is used although no model trains at it; None where it may do."""
    if config.start_lr <= HIGHEST_USUAL_LR:
        return None
    return f"it is far above what models train at, which is between 1e-5 and {HIGHEST_USUAL_LR:g}"


def look(run: TrainingRun) -> Found:
    """Find the LR as a run would and take everything back."""
    run.model.train()
    return run.auto.look(run_trial(run))


def still_comparable(learned: Mapping[str, Any], state: Mapping[str, Any], run: TrainingRun) -> Mapping[str, Any]:
    """`learned`, of the checkpoint dict `state`; without its evaluations where those of `run` are other ones, which is
    logged."""
    now = {"config": run.config.to_dict(), "eval_id": run.eval_batches.id}
    if learned.get("evaluations") is None or same_evaluation(state, now):
        return learned
    if run.config.on_overfit != "ignore":  # as it is for each of several workers: of these the supervisor speaks
        other = "what is evaluated, and how," if same_text(state, now) is not False else "the text that is evaluated"
        run.log_fn({"event": "evaluations_anew", "step": state["step"], "reason": f"{other} has changed"})
    return {**learned, "evaluations": None}
