"""Log records that are no points of a curve, as the things a reader wants: adjustments, phases, sentences."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aios.errors import shown

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Adjustment:
    """One change of the learning rate (event `adaptive_lr_adjustment`)."""

    step: int
    """Optimizer step after which it holds."""
    rank: int | None
    """The worker it belongs to; None where there is one only."""
    decision: str
    """`increase`, `decrease`, `spike_decrease`, ..."""
    old_lr: float
    """Learning rate before; NaN where the log has none."""
    new_lr: float
    """Learning rate after; NaN where the log has none."""
    change_pct: float
    """Change in percent of the old rate."""
    reason: str
    """As logged: a word, then the numbers in brackets."""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Numbers of the window that decided; None where there is no finite one."""
    groups: Any = None
    """Rates per param group where the log has them, as logged."""
    ts: float = math.nan
    """Unix seconds."""

    @property
    def why(self) -> str:
        """The reason in plain words."""
        return plain_reason(self.reason)

    def describe(self) -> str:
        """All there is to know, in a few lines."""
        who = f"step {self.step:,}" + (f", worker {self.rank}" if self.rank is not None else "")
        lines = [f"{who}: {self.decision.replace('_', ' ')}"]
        lines.append(f"LR {self.old_lr:.3g} \u2192 {self.new_lr:.3g} ({self.change_pct:+.1f} %)")
        lines.append(self.why)
        known = [
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in self.metrics.items()
            if isinstance(value, (int, float))
        ]
        return "\n".join([*lines, ", ".join(known)] if known else lines)


@dataclass(frozen=True)
class RunEvent:
    """Anything else worth a line."""

    step: int
    """Optimizer step."""
    rank: int | None
    """The worker it belongs to; None where there is one only."""
    event: str
    """The record's event."""
    text: str
    """One short sentence."""
    ts: float
    """Unix seconds; NaN where the log has none."""


@dataclass(frozen=True)
class Phase:
    """A stretch of steps with a purpose of its own: `climb`, `search`, `trial`, `warm-up` or `anneal`."""

    kind: str
    """What is done in it."""
    start: int
    """The step it begins after."""
    end: int
    """Its last step."""


def number(record: Record, key: str) -> float:
    """The number at `key`, NaN where there is none; infinite where it is a whole number too large for a float."""
    value = record.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def adjustment_from(record: Record, step: int, rank: int | None) -> Adjustment:
    """The adjustment that an `adaptive_lr_adjustment` record tells of; what it lacks is NaN or empty."""
    metrics = record.get("metrics")
    old_lr, new_lr = number(record, "old_lr"), number(record, "new_lr")
    change = number(record, "change_pct")
    if math.isnan(change) and old_lr > 0:
        change = 100 * (new_lr / old_lr - 1)
    return Adjustment(
        step, rank, str(record.get("decision", "unknown")), old_lr, new_lr, change, str(record.get("reason", "")),
        dict(metrics) if isinstance(metrics, dict) else {}, record.get("groups"), number(record, "ts"),
    )  # fmt: skip


_PLAIN_REASONS = {
    "improving": "the loss falls steadily",
    "plateau": "the loss no longer falls",
    "worsening": "the loss rises slowly",
    "unstable": "the loss is too noisy",
    "loss_spike": "the loss jumped",
    "non_finite_loss": "the loss was NaN or infinite",
    "non_finite_gradient": "the gradient was NaN or infinite",
    "gradient_explosion": "the gradient exploded",
    "vanishing_gradient": "the gradient vanishes while the loss is flat",
    "persistent_trouble": "the trouble did not pass",
    "search_refuted": "the rate of the search did not hold",
    "not_learning": "the loss did not come down at the rate that was found",
    "rewinds_exhausted": "rewinding did not help",
    "regime_change": "the data changed",
    "higher_rate_won": "a higher rate was clearly better on the same batches",
    "trouble_over": "the trouble has passed",
    "foreign_lr": "the rate was changed from outside",
}


def plain_reason(reason: str) -> str:
    """`plateau (60 steps, patience 20)` -> `the loss no longer falls (60 steps, patience 20)`."""
    word, space, numbers = reason.partition(" ")
    return _PLAIN_REASONS.get(word, word.replace("_", " ")) + space + numbers


def sentence(record: Record) -> str | None:
    """One short sentence on a record that is neither a training step nor an adjustment; None: not worth a line."""
    event = str(record.get("event"))
    if event in _SILENT:
        return None
    said = _SENTENCES.get(event)
    return said(record) if said is not None else _any_event(event, record)


def _of(record: Record, key: str, form: str = "") -> str:
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return "?"
    if isinstance(value, str):
        return value
    return format(value, form) if abs(value) <= sys.float_info.max or isinstance(value, float) else shown(value)


def _search(record: Record) -> str:
    found = record.get("suggestion")
    what = f"search found LR {_of(record, 'suggestion', '.3g')}" if found is not None else "search found no LR"
    return f"{what}: {_of(record, 'reason')}"


def _found(record: Record) -> str:
    way = "climb" if record.get("event") == "adaptive_lr_climb" else "race"
    what = f"found LR {_of(record, 'lr', '.3g')}" if record.get("lr") is not None else "found no LR"
    return f"{way} {what}: {_of(record, 'reason')} ({_of(record, 'search_steps')} steps without training)"


def _challenge(record: Record) -> str:
    steps = _of(record, "search_steps" if "search_steps" in record else "used_steps")
    tried = _of(record, "challenger_lr", ".3g")
    return f"tried LR {tried} for {steps} steps and took them back; the same batches come again at the rate in force"


def _challenge_result(record: Record) -> str:
    gain, tried = number(record, "gain"), _of(record, "challenger_lr", ".3g")
    how = "training broke" if math.isnan(gain) else f"loss {-100 * gain:+.1f} %, error {_of(record, 'error', '.1%')}"
    return f"LR {tried} {'is better' if record.get('won') else 'is not clearly better'}: {how}"


def _anneal(record: Record) -> str:
    reason = _of(record, "reason")
    why = {"finish_now": "as asked", "overfitting": "from the best state"}.get(reason, "the end of the run")
    return f"annealing the LR to zero until step {_of(record, 'end')} ({why})"


def _overfitting(record: Record) -> str:
    then = f"step {_of(record, 'best_step')}"
    done = {
        "finish": f"back to the state of {then}, to anneal from there and end",
        "finish_from_here": f"the state of {then} is not there any more, so it anneals from here and ends",
    }.get(_of(record, "done"), f"training goes on; the brain of {then} is the best")
    rise = f"evaluation loss {_of(record, 'eval_loss', '.4f')}, at {then} it was {_of(record, 'best_eval_loss', '.4f')}"
    return f"overfitting: {rise}; {done}"


def _final(record: Record) -> str:
    text = f"finished: evaluation loss {_of(record, 'eval_loss', '.4f')}"
    if record.get("best_step") in (None, record.get("step")):
        return text
    return f"{text}; the brain is that of step {_of(record, 'best_step')} ({_of(record, 'best_eval_loss', '.4f')})"


def _merge(record: Record) -> str:
    shares = record.get("weights")
    who = f"{len(shares)} workers merged" if isinstance(shares, list) else "workers merged"
    loss = number(record, "eval_loss")
    return who if math.isnan(loss) else f"{who}: evaluation loss {loss:.4f}"


def _any_event(event: str, record: Record) -> str:
    details = [_of(record, key) for key in ("reason", "sentence", "message") if isinstance(record.get(key), str)]
    return ": ".join([event.replace("_", " "), *details])


_SILENT = {"train", "adaptive_lr_adjustment", "adaptive_lr_summary"}
_STOP_REASONS = {"stop_file": "on request", "signal": "by a signal", "trouble": "training did not recover"}
_SENTENCES: dict[str, Callable[[Record], str]] = {
    "run_start": lambda r: f"run started on {_of(r, 'device')}",
    "run_resumed": lambda r: f"run resumed at step {_of(r, 'step')}",
    "warmup_complete": lambda r: f"warm-up complete at LR {_of(r, 'lr', '.3g')}",
    "eval": lambda r: f"evaluation loss {_of(r, 'loss', '.4f')}",
    "checkpoint": lambda r: f"saved {_of(r, 'path')}",
    "stopped": lambda r: f"stopped ({_STOP_REASONS.get(_of(r, 'reason'), _of(r, 'reason'))})",
    "final": _final,
    "merge": _merge,
    "worker_restarted": lambda r: f"worker {_of(r, 'worker')} {_of(r, 'reason')} and started again here",
    "adaptive_lr_init": lambda r: (
        f"adaptive LR from {_of(r, 'initial_lr', '.3g')} within {_of(r, 'lr_min', '.3g')} to {_of(r, 'lr_max', '.3g')}"
    ),
    "adaptive_lr_search": _search,
    **dict.fromkeys(("adaptive_lr_climb", "adaptive_lr_race"), _found),
    "not_learning": lambda r: (
        f"not learning since step {_of(r, 'since')}: loss {_of(r, 'loss', '.4g')}, at the end of the climb it was "
        f"{_of(r, 'reference', '.4g')}; LR now {_of(r, 'lr', '.3g')}"
    ),
    "overfitting": _overfitting,
    "adaptive_lr_challenge": _challenge,
    "adaptive_lr_challenge_result": _challenge_result,
    "adaptive_lr_anneal": _anneal,
    "adaptive_lr_restored": lambda r: f"adaptive LR restored at {_of(r, 'current_lr', '.3g')}",
    "adaptive_lr_trouble": lambda r: f"{_of(r, 'rung')}: {plain_reason(_of(r, 'reason'))}",
    "moe_lr_adjustment": lambda r: (
        f"LR {_of(r, 'original_lr', '.3g')} -> {_of(r, 'adjusted_lr', '.3g')}: {_of(r, 'reason')}"
    ),
}
