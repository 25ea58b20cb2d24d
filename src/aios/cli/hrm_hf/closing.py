"""What a run says of itself once it has ended: its totals, its last log record, its brain's card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aios.auto_lr.overfit import Evaluation
from aios.runs.brain import BrainCard, best_dir
from aios.settings.config import TrainingConfig


def totals(
    steps: int, search_steps: int | None, loss: float | None, eval_loss: float | None, wall_s: float | None
) -> dict[str, Any]:
    """Of a run: losses in nats per token, time in seconds; None is what is not known."""
    return {"steps": steps, "search_steps": search_steps, "loss": loss, "eval_loss": eval_loss, "wall_s": wall_s}


def final_record(
    step: int,
    totals: Mapping[str, Any],
    best: Evaluation | None,
    brain_dir: Path,
    checkpoint: Path,
    in_climb: Evaluation | None = None,
) -> dict[str, Any]:
    """The `final` record of a run that ended after optimizer step `step`; no word of a `best` where none is heeded.

    `in_climb` is the lowest evaluation of the climb, as far as known: named where it is lower than the best.
    """
    told: dict[str, Any] = {}
    if best is not None:
        told = {"best_step": best.step, "best_eval_loss": best.loss, "best": str(best_dir(brain_dir))}
    if best is not None and in_climb is not None and in_climb.loss < best.loss:
        told |= {"climb_step": in_climb.step, "climb_eval_loss": in_climb.loss}
    return {"event": "final", "step": step, **totals, **told, "checkpoint": str(checkpoint)}


def brain_card(
    config: TrainingConfig,
    dataset: str,
    architecture: dict[str, Any],
    step: int,
    created: float,
    last_session: dict[str, Any] | None = None,
) -> BrainCard:
    """The card of the brain that `config` trains, as it is after optimizer step `step`; `created` in unix seconds."""
    return BrainCard(
        name=config.brain_name,
        dataset=dataset,
        tokenizer=config.model or "bundled",
        architecture=architecture,
        trained_steps=step,
        created=created,
        last_session=last_session or {},
    )
