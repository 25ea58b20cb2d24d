"""The decisions of a run, in order: each a log record with its kind, its steps, one sentence and its numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aios.run_view.events import MAX_STEP, Adjustment, Phase, Record, adjustment_from, number
from aios.run_view.reasons import GRADIENT_NORM, MEAN_LOSS, SPREAD, USUAL_GRADIENT, Numbers, reason_numbers
from aios.run_view.sentences import curve_of, plain, sentence

MOST_POINTS = 12
"""Points of a climb's curve up to which each is told as a number; of more, about so many."""
_KINDS = {
    "run_start": "start",
    "run_resumed": "start",
    "lr_asked": "start",
    "evaluations_anew": "start",
    "adaptive_lr_init": "start",
    "warmup_complete": "warm-up",
    "adaptive_lr_search": "search",
    "adaptive_lr_climb": "climb",
    "adaptive_lr_race": "race",
    "adaptive_lr_roles": "roles",
    "adaptive_lr_group": "roles",
    "adaptive_lr_adjustment": "adjustment",
    "adaptive_lr_trouble": "trouble",
    "worker_restarted": "trouble",
    "adaptive_lr_challenge": "trial",
    "adaptive_lr_challenge_result": "trial",
    "adaptive_lr_anneal": "anneal",
    "adaptive_lr_restored": "start",
    "adaptive_lr_state_missing": "start",
    "adaptive_lr_disabled": "start",
    "moe_lr_adjustment": "experts",
    "not_learning": "not learning",
    "overfitting": "overfitting",
    "stopped": "end",
    "final": "end",
}


@dataclass(frozen=True)
class Decision:
    """One entry of the timeline; all that is told of it follows from its record."""

    record: Record
    """As logged."""
    step: int
    """Optimizer step at which it was logged."""
    rank: int | None
    """The worker it belongs to; None where there is one only."""
    adjustment: Adjustment | None = None
    """The change of the learning rate, where it is one."""

    @property
    def kind(self) -> str:
        """What sort of decision: `climb`, `adjustment`, `trouble`, ...; where it has a phase, the phase's kind."""
        event = str(self.record.get("event"))
        if event == "adaptive_lr_init" and number(self.record, "warmup_steps") > 0:
            return "warm-up"
        return _KINDS[event]

    @property
    def label(self) -> str:
        """The kind as it is shown: of an adjustment its decision, as in the legend of the plot."""
        return self.kind if self.adjustment is None else self.adjustment.decision.replace("_", " ")

    @property
    def span(self) -> tuple[int, int]:
        """(step it begins after, last step); twice the same where it is no stretch."""
        record, step = self.record, self.step
        used, warmup = number(record, "used_steps"), number(record, "warmup_steps")
        if self.kind == "climb":
            return 0, step
        if self.kind in ("search", "trial") and used > 0:
            return max(0, step - int(min(used, MAX_STEP))), step
        if record.get("event") == "adaptive_lr_init" and warmup > 0:
            return step, step + int(min(warmup, MAX_STEP))
        start, end = number(record, "start"), number(record, "end")
        return (int(start), int(end)) if self.kind == "anneal" and 0 <= start < end < MAX_STEP else (step, step)

    @property
    def sentence(self) -> str:
        """What was done, and why, in one plain sentence."""
        return str(sentence(self.record))

    @property
    def numbers(self) -> Numbers:
        """(name, value) of what is behind it, ready to be shown in two columns."""
        tell = _NUMBERS.get(str(self.record.get("event")))
        return tell(self.record) if tell is not None else []


def decision_from(record: Record, step: int, rank: int | None) -> Decision | None:
    """The decision that a record tells of; None for what is none (an evaluation, a checkpoint, ...)."""
    event = record.get("event")
    if event not in _KINDS:
        return None
    return Decision(record, step, rank, adjustment_from(record, step, rank) if event == _ADJUSTMENT else None)


def in_brief(decision: Decision, most: int = 6) -> str:
    """A decision in a few lines: step and kind, sentence, and at most so many of its numbers."""
    lines = [f"Step {decision.step:,}: {decision.label}", decision.sentence]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in decision.numbers[:most])])


def told_over(phases: Sequence[Phase], decisions: Sequence[Decision], step: float) -> Decision | None:
    """The decision behind the shaded phase that optimizer step `step` lies in, the shortest of several; None: none."""
    over = [phase for phase in phases if phase.start <= step <= phase.end]
    if not over:
        return None
    phase = min(over, key=lambda p: p.end - p.start)
    behind = [d for d in decisions if d.kind == phase.kind and d.span[0] <= phase.end and phase.start <= d.span[1]]
    return max(behind, key=lambda d: _overlap(d, phase), default=None)


def _overlap(decision: Decision, phase: Phase) -> int:
    start, end = decision.span
    return min(end, phase.end) - max(start, phase.start)


def _fields(**names: str) -> Callable[[Record], Numbers]:
    """A teller of some of a record's keys, by the names they are shown under."""
    return lambda record: [(name.replace("_", " "), plain(record[key])) for name, key in names.items() if key in record]


def _start(record: Record) -> Numbers:
    whole = {"parameters": "params", "tokens to train on": "train_tokens", "tokens held out": "eval_tokens"}
    told = [(name, plain(record[key], ",")) for name, key in whole.items() if key in record]
    return told + _fields(unigram_entropy="unigram_entropy")(record)


def _climb(record: Record) -> Numbers:
    """The points of the curve; of many some, evenly spaced, and those that decided (the lowest, the edge, the last)."""
    curve, lowest = curve_of(record), _lowest(curve_of(record))
    told = [("steps of it taken back", plain(record["search_steps"]))] if record.get("search_steps") else []
    every = max(1, math.ceil(len(curve) / MOST_POINTS))
    # The range test of earlier versions had no edge in its record: the highest rate allowed was where it ended.
    edge = number(record, "lr_max" if record.get("event") == "adaptive_lr_search" else "edge")
    nearest = min(curve, key=lambda p: abs(p[0] - edge), default=None) if math.isfinite(edge) else None
    shown = [p for i, p in enumerate(curve) if i % every == 0 or p in (nearest, curve[-1]) or p[1] == lowest]
    left_out = len(curve) - len(shown)
    return told + _points(shown, lowest) + ([("rates not listed here", f"{left_out}, in the log")] if left_out else [])


def _race(record: Record) -> Numbers:
    curve = curve_of(record)
    told = _points(curve, _lowest(curve))
    return told + ([("steps that trained nothing", plain(record["search_steps"]))] if "search_steps" in record else [])


def _lowest(curve: Sequence[tuple[float, float]]) -> float:
    return min((loss for _, loss in curve if math.isfinite(loss)), default=math.nan)


def _points(points: Sequence[tuple[float, float]], lowest: float) -> Numbers:
    words = [(f"loss at {rate:.3g}", f"{loss:.4g}" if math.isfinite(loss) else "broke", loss) for rate, loss in points]
    return [(name, value + (" (lowest)" if loss == lowest else "")) for name, value, loss in words]


def _adjustment(record: Record) -> Numbers:
    """Of the window's metrics those that the reason does not say in its own way: no two measures of one thing."""
    told = reason_numbers(str(record.get("reason", "")))
    metrics, groups = record.get("metrics"), record.get("groups")
    for key, name in (("loss_avg", MEAN_LOSS), ("cv", SPREAD)):
        if isinstance(metrics, dict) and key in metrics and name not in dict(told):
            told.append((name, plain(metrics[key])))
    if isinstance(groups, dict):
        changed = [(role, rates) for role, rates in groups.items() if isinstance(rates, dict)]
        told += [(str(role), f"{plain(r.get('old_lr'))} to {plain(r.get('new_lr'))}") for role, r in changed]
    return told


def _trouble(record: Record) -> Numbers:
    told, numbers = reason_numbers(str(record.get("reason", ""))), record.get("numbers")
    for key, value in numbers.items() if isinstance(numbers, dict) else ():
        name = _TROUBLE.get(str(key), str(key).replace("_", " "))
        if name not in dict(told) and key != "step":
            told.append((name, plain(value)))
    return told


def _final(record: Record) -> Numbers:
    told = _fields(training_loss="loss", evaluation_loss="eval_loss", best_evaluation_loss="best_eval_loss")(record)
    more = _fields(at_step="best_step", steps_that_trained_nothing="search_steps")(record)
    seconds = number(record, "wall_s")
    return told + more + ([] if math.isnan(seconds) else [("seconds", f"{seconds:,.0f}")])


_ADJUSTMENT = "adaptive_lr_adjustment"
_TROUBLE = {"grad_norm": GRADIENT_NORM, "grad_median": USUAL_GRADIENT, "loss_now": "level of the loss"}
_NUMBERS: dict[str, Callable[[Record], Numbers]] = {
    "run_start": _start,
    "run_resumed": _start,
    "adaptive_lr_init": _fields(lowest_rate="lr_min", highest_rate="lr_max", steps_of_a_window="window_size"),
    "adaptive_lr_search": _climb,
    "adaptive_lr_climb": _climb,
    "adaptive_lr_race": _race,
    _ADJUSTMENT: _adjustment,
    "adaptive_lr_trouble": _trouble,
    "adaptive_lr_anneal": _fields(begins_after_step="start", ends_at_step="end"),
    "not_learning": _fields(loss="loss", compared_with="reference", learning_rate_now="lr"),
    "overfitting": _fields(
        evaluation_loss="eval_loss", lowest="best_eval_loss", at_step="best_step", chance_explains="noise"
    ),
    "final": _final,
}


def as_data(decision: Decision) -> dict[str, Any]:
    """A decision for programs: its record's keys, and `kind`, `span`, `decision`, `old_lr`, `new_lr`, `sentence`, ...

    All have the keys of an adjustment, null where there is nothing to say, so that one reading fits them all.
    """
    record, change, rank = decision.record, decision.adjustment, decision.rank
    own = {key: value for key, value in record.items() if key not in ("config", "versions", "rank")}
    own |= {"step": decision.step, "ts": _finite(number(record, "ts"))} | ({"rank": rank} if rank is not None else {})
    told = {"kind": decision.kind, "span": list(decision.span), "sentence": decision.sentence}
    rates: dict[str, Any] = {"decision": decision.kind, "old_lr": None, "new_lr": None, "change_pct": None}
    rates |= {"reason": record.get("reason", ""), "metrics": {}}
    if change is not None:
        rates = {key: _finite(getattr(change, key)) for key in rates}
    return {**own, **rates, **told, "numbers": dict(decision.numbers)}


def _finite(value: Any) -> Any:
    """As JSON can say it: null for what is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
