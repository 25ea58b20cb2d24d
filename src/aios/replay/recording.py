"""What a training log recorded of a run's learning rate: the losses that counted, the decisions, sitting by sitting.

A resumed run repeats the steps behind its checkpoint. Only the history that led to the end counts: what a later
sitting repeated replaces what an earlier one had logged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aios.auto_lr.anneal import Anneal
from aios.auto_lr.search import Found
from aios.errors import UserError, shown
from aios.run_view.events import BEGINNINGS, Adjustment, Record, adjustment_from, loss_of, lr_of, number
from aios.run_view.follow import LogFollower
from aios.run_view.history import FINISHES
from aios.run_view.reading import find_log
from aios.settings.config import TrainingConfig

_SETTINGS = (
    *("lr", "auto_adjust_lr", "adaptive_lr_profile", "adaptive_lr_config", "anneal_fraction", "warmup_steps"),
    *("steps", "use_moe", "model_dtype", "parallel_independent", "merge_every"),
)


class Step(NamedTuple):
    """One optimizer step as logged; NaN stands for any number that was not finite or is not there."""

    step: int
    """Global optimizer step, counted from 1."""
    ce: float
    """The loss the scheduler saw: mean cross-entropy, nats per token."""
    grad_norm: float
    """Global L2 norm before clipping."""
    lr: float
    """LR of the step's update, that of the first param group."""


@dataclass
class RecordedSitting:
    """What a run did from one start or resume to the next."""

    config: TrainingConfig
    """The settings it ran with."""
    first_step: int
    """The step it went on from; 0 for a fresh start."""
    scales_loss: bool = False
    """Whether its loss was scaled, so that gradients could overflow without anything being wrong."""
    steps: dict[int, Step] = field(default_factory=dict)
    """By step number."""
    adjustments: list[Adjustment] = field(default_factory=list)
    """In the order of the log."""
    checkpoints: set[int] = field(default_factory=set)
    """Steps at which it saved."""
    finishes: dict[int, Anneal] = field(default_factory=dict)
    """By step: the anneal that began when the run was asked to finish now, or overfitted."""
    replaced: set[int] = field(default_factory=set)
    """Steps at which the weights were replaced, by the mean of several workers' or those of the best evaluation."""
    init: Record | None = None
    """The `adaptive_lr_init` record; None where the LR was fixed."""
    search: Found | None = None
    """What a search found before the first step."""
    search_counted: int = 0
    """Steps of the run up to which the rate was being found."""
    warmup_complete: int | None = None
    """The last step of the warm-up."""
    restored_lr: float | None = None
    """The rate at which the scheduler went on with what it had learned; None where it began afresh."""

    def cut_after(self, step: int) -> None:
        """Forget what a later sitting did again."""
        self.steps = {s: values for s, values in self.steps.items() if s <= step}
        self.adjustments = [a for a in self.adjustments if a.step <= step]
        self.checkpoints = {s for s in self.checkpoints if s <= step}
        self.replaced = {s for s in self.replaced if s <= step}
        self.finishes = {s: anneal for s, anneal in self.finishes.items() if s <= step}
        if self.warmup_complete is not None and self.warmup_complete > step:
            self.warmup_complete = None


@dataclass
class Recording:
    """One worker's run, as far as its log goes."""

    path: Path
    """The log."""
    rank: int
    """The worker; 0 where the log names none."""
    ranks: tuple[int, ...]
    """All workers that the log names."""
    sittings: list[RecordedSitting]
    """In order; at least one."""

    @property
    def adjustments(self) -> list[Adjustment]:
        """All that counted, in order."""
        return [adjustment for sitting in self.sittings for adjustment in sitting.adjustments]

    def ordered_steps(self) -> Iterator[Step]:
        """All that counted, in order."""
        return (sitting.steps[step] for sitting in self.sittings for step in sorted(sitting.steps))


def read_recording(path: Path, rank: int = 0) -> Recording:
    """Read the whole log at `path` (a log or a brain's folder): the records of worker `rank` and those of all.

    Raises:
        UserError: when there is no log, no run in it, or no such worker.
    """
    path = find_log(path)
    sittings: list[RecordedSitting] = []
    ranks: set[int] = set()
    for record in _records(path):
        of = record.get("rank")
        if isinstance(of, int):
            ranks.add(of)
        if of in (None, rank):
            _take(sittings, record)
    if rank not in (ranks or {0}):
        known = f"the workers {', '.join(map(str, sorted(ranks)))}" if ranks else "one worker only"
        raise UserError(f"--rank is {rank}, but {path} holds {known}; choose another or leave it out.")
    if not any(sitting.steps for sitting in sittings):
        raise UserError(f"{path} holds no training steps of a run from its start; give the whole log of a run.")
    return Recording(path, rank, tuple(sorted(ranks)), sittings)


def _records(path: Path) -> Iterable[dict[str, Any]]:
    follower = LogFollower(path)
    yield from follower.rest()
    if (no_log := follower.no_log) is not None:
        raise UserError(no_log)


def _take(sittings: list[RecordedSitting], record: Record) -> None:
    """Let one record, in the order of the log, tell its part."""
    event, step = record.get("event"), record.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or not isinstance(event, str):
        return
    if event in BEGINNINGS:
        config = _config(record)
        scales_loss = record.get("loss_scaling", config.model_dtype == "fp16") is True  # logs of before do not say
        _begin_sitting(sittings, RecordedSitting(config, step if event == "run_resumed" else 0, scales_loss))
        return
    if event == "adaptive_lr_init" and sittings and sittings[-1].init is not None:
        before = sittings[-1]  # of a worker that was lost and was started again
        _begin_sitting(sittings, RecordedSitting(before.config, step, before.scales_loss))
    if sittings and event in _TAKE:
        _TAKE[event](sittings[-1], record, step)
        if event in _FINDS:
            del sittings[:-1]  # the controller begins here


def _begin_sitting(sittings: list[RecordedSitting], new: RecordedSitting) -> None:
    # A sitting that came no further than where the new one begins matters only if it saved there.
    step = new.first_step
    kept = [s for s in sittings if s.first_step < step or (s.first_step == step > 0 and step in s.checkpoints)]
    for sitting in kept:
        sitting.cut_after(step)
    sittings[:] = [*kept, new]


def _config(record: Record) -> TrainingConfig:
    """The settings in a record that the learning rate depends on: those alone, so that old logs stay readable."""
    config = record.get("config")
    if not isinstance(config, dict):
        raise UserError(f"The log's {record['event']} record has no config; such a run cannot be replayed.")
    try:
        return TrainingConfig(**{name: config[name] for name in _SETTINGS if name in config})
    except UserError as error:
        raise UserError(f"The log's {record['event']} record has settings that cannot be replayed: {error}") from error


def _train(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.steps[step] = Step(step, loss_of(record), number(record, "grad_norm"), lr_of(record))


def _adjusted(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.adjustments.append(adjustment_from(record, step, None))


def _saved(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.checkpoints.add(step)


def _annealing(sitting: RecordedSitting, record: Record, step: int) -> None:
    if record.get("reason") in FINISHES:
        start, end, scale = (number(record, key) for key in ("start", "end", "scale"))
        if math.isfinite(start + end + scale):
            sitting.finishes[step] = Anneal(int(start), int(end), scale)


def _initialised(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.init = dict(record)


def _searched(sitting: RecordedSitting, record: Record, step: int) -> None:
    try:
        sitting.search = Found.from_dict(record)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The log's {record['event']} record is damaged ({shown(error)}); it cannot be replayed."
        ) from error
    sitting.search_counted = step


def _merged(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.replaced.add(step)


def _overfitted(sitting: RecordedSitting, record: Record, step: int) -> None:
    if record.get("done") != "keep-best":
        sitting.replaced.add(step)


def _warmed_up(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.warmup_complete = step


def _restored(sitting: RecordedSitting, record: Record, step: int) -> None:
    sitting.restored_lr = number(record, "current_lr")


_FINDS = ("adaptive_lr_search", "adaptive_lr_climb", "adaptive_lr_race")
_TAKE: dict[str, Callable[[RecordedSitting, Record, int], None]] = {
    "train": _train,
    "adaptive_lr_adjustment": _adjusted,
    "adaptive_lr_init": _initialised,
    **dict.fromkeys(_FINDS, _searched),
    "adaptive_lr_restored": _restored,
    "adaptive_lr_anneal": _annealing,
    "warmup_complete": _warmed_up,
    "merge": _merged,
    "overfitting": _overfitted,
    "checkpoint": _saved,
}
