"""Made-up training logs, as records and as bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aios.run_view.history import RunHistory

Record = dict[str, Any]


def start(steps: int = 1000, **more: Any) -> Record:
    """`run_start` of a run of `steps` steps."""
    config = {"steps": steps, "brain_name": "made-up"}
    return {"event": "run_start", "ts": 0.0, "step": 0, "run_id": "a", "config": config, **more}


def train(step: int, loss: float | None = 3.0, ts: float | None = None, **more: Any) -> Record:
    """A training step; one second per step unless `ts` says otherwise."""
    record = {"event": "train", "ts": float(step) if ts is None else ts, "step": step, "loss": loss, "ce": loss}
    return {**record, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_sec": 900.0, "step_time_s": 1.0, **more}


def sample(step: int, text: str = " it goes") -> Record:
    """What a model said on its way."""
    return {"event": "sample", "ts": float(step), "step": step, "prompt": "On", "text": text}


def adjustment(step: int, decision: str = "increase", new_lr: float = 1.1e-3, **more: Any) -> Record:
    """A change of the learning rate from 1e-3."""
    rates = {"old_lr": 1e-3, "new_lr": new_lr, "change_pct": 100 * (new_lr / 1e-3 - 1)}
    why = {"reason": "improving (3.00% per window, cv 0.02)", "metrics": {"loss_avg": 3.0, "cv": None}}
    return {
        "event": "adaptive_lr_adjustment",
        "ts": float(step),
        "step": step,
        "decision": decision,
        **rates,
        **why,
        **more,
    }


def as_bytes(records: Sequence[Record]) -> bytes:
    """The lines of a log."""
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def write(path: Path, records: Sequence[Record]) -> Path:
    """A log of these records."""
    path.write_bytes(as_bytes(records))
    return path


def history_of(records: Sequence[Record]) -> RunHistory:
    """The history of these records, taken at once."""
    history = RunHistory()
    history.add(records)
    return history


def told(history: RunHistory) -> dict[str, Any]:
    """Everything that a history tells, comparable with ==."""
    curves = {}
    for rank in history.ranks:
        for key in history.keys:
            series = history.series(key, rank)
            columns = (series.steps, series.mean, series.low, series.high, series.non_finite)
            curves[key, rank] = [column.tobytes() for column in columns]
    facts = {
        "step": history.step,
        "total": history.total_steps,
        "state": history.state,
        "count": history.adjustment_count,
    }
    lists = {"decisions": history.decisions, "phases": history.phases}
    events = [repr(event) for event in history.other_events]  # NaN is not equal to itself
    return {**facts, **lists, "events": events, "eta": history.eta_seconds(1e6), "curves": curves}
