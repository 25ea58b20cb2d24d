"""What drawn curves say at one step, for a crosshair, and all they say, as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from aios.run_view.series import Floats

Points = tuple[Floats, Floats]
"""(optimizer steps, ascending; values there, of the same length)."""


@dataclass(frozen=True)
class DrawnCurves:
    """What is drawn of one worker of one run."""

    run: str
    """Label of the run."""
    worker: int | None
    """Its rank; None where there is one only, and of the model that several merge."""
    color: str
    """Of its lines."""
    loss: Points
    """Training loss, nats per token."""
    smooth: Points
    """The same, smoothed."""
    evaluation: Points
    """Evaluation loss, nats per token."""
    rates: Mapping[str, Points]
    """Learning rates: `lr`, and `lr[1]`... of groups with one of their own."""


class Values(NamedTuple):
    """One worker of one run at one step; NaN where it has no such value."""

    step: float
    """The step with values that is nearest to the one asked for."""
    loss: float
    """Training loss."""
    smooth: float
    """The same, smoothed."""
    evaluation: float
    """The newest evaluation loss up to there."""
    evaluated_at: float
    """Its step."""
    lr: float
    """Learning rate of the first group."""


def values_at(curves: DrawnCurves, step: float) -> Values | None:
    """What the curves say nearest to `step`; None where there is no training step."""
    at = nearest(curves.loss[0], step)
    if at is None:
        return None
    there = float(curves.loss[0][at])
    steps, losses = curves.evaluation
    before = int(np.searchsorted(steps, there, side="right")) - 1
    evaluation = (float(losses[before]), float(steps[before])) if before >= 0 else (math.nan, math.nan)
    smooth, lr = (_value(points, there) for points in (curves.smooth, curves.rates.get("lr", EMPTY)))
    return Values(there, float(curves.loss[1][at]), smooth, *evaluation, lr)


def nearest(steps: Floats, step: float) -> int | None:
    """Index of the entry that is nearest to `step` in ascending `steps`, None where there is none."""
    if not len(steps):
        return None
    after = int(np.searchsorted(steps, step))
    around = [at for at in (after - 1, after) if 0 <= at < len(steps)]
    return min(around, key=lambda at: abs(float(steps[at]) - step))


def told(values: Values) -> str:
    """`loss 3.871, smoothed 3.920, evaluation 4.310 (step 400), LR 0.00411`; what is not known is left out."""
    parts = [
        (f"loss {values.loss:.4f}", values.loss),
        (f"smoothed {values.smooth:.4f}", values.smooth),
        (f"evaluation {values.evaluation:.4f} (step {values.evaluated_at:,.0f})", values.evaluation),
        (f"LR {values.lr:.3g}", values.lr),
    ]
    return ", ".join(text for text, value in parts if not math.isnan(value)) or "NaN"


def csv_rows(drawn: Sequence[DrawnCurves]) -> Iterator[list[str]]:
    """A row of headings, then a row per run, worker and step; a cell is empty where there is no finite value."""
    rates = sorted({key for curves in drawn for key in curves.rates})
    yield ["run", "worker", "step", "loss", "smoothed", "eval_loss", *rates]
    for curves in drawn:
        columns = [curves.loss, curves.smooth, curves.evaluation, *(curves.rates.get(key, EMPTY) for key in rates)]
        known = [dict(zip(steps.tolist(), values.tolist(), strict=True)) for steps, values in columns]
        for step in sorted({step for column in known for step in column}):
            cells = [column.get(step, math.nan) for column in known]
            numbers = [f"{value:.8g}" if math.isfinite(value) else "" for value in cells]
            yield [curves.run, "" if curves.worker is None else str(curves.worker), f"{step:.10g}", *numbers]


def _value(points: Points, step: float) -> float:
    at = nearest(points[0], step)
    return float(points[1][at]) if at is not None else math.nan


EMPTY: Points = (np.empty(0), np.empty(0))
