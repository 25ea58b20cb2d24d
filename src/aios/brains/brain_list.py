"""The brains in a folder and what became of each: read from what runs leave on disk, never from memory."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from aios.brains.printed_output import last_error, tail
from aios.brains.session_file import SessionFile, read_session
from aios.errors import UserError
from aios.file_names import LOG_FILE
from aios.places import expanded
from aios.run_view.events import BEGINNINGS, number
from aios.run_view.follow import record_of
from aios.run_view.history import RunHistory, progress_text
from aios.run_view.reading import Outlines
from aios.runs.brain import holds_brain, list_checkpoints
from aios.runs.brain_name import numbered
from aios.runs.lock import holder_of

_GOES_ON = ("train", *BEGINNINGS)
"""Records of a sitting that is not closed yet."""
GROWING_SECONDS = 30.0
"""How much later than the output of a session its log must have grown to belong to another training."""

DELETED = ".deleted-"
"""How the folder of a brain is called, before its name, while it is being deleted."""

LOOKING = threading.Lock()
"""Held while this process opens or holds a brain's lock: closing a second descriptor would let go of the first."""


class State(Enum):
    """What a brain's training is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    STOPPED = "stopped"
    FINISHED = "finished"
    KILLED = "killed"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # ended without a closing record, and not started by a window


@dataclass(frozen=True)
class Brain:
    """One brain and what is known of its training."""

    folder: Path
    """Its folder."""
    log: Path
    """Its training log, which may not be there yet."""
    state: State
    """What its training is doing."""
    step: int = 0
    """Optimizer steps done."""
    steps: int | None = None
    """The step at which the last run ends: its last, or sooner once asked to finish; None: not known."""
    loss: float | None = None
    """Newest training loss, nats per token: of an ended run the one it closes with, which of independent workers is
    their mean; None: none, or not finite."""
    eval_loss: float | None = None
    """Newest evaluation loss, nats per token; None: none, or not finite."""
    best_loss: float | None = None
    """Lowest evaluation loss since the data or the way to evaluate last changed, nats per token; None: none."""
    sentence: str = ""
    """Why it failed or ended."""
    modified: float = 0.0
    """When its log last grew, unix seconds; 0: never."""
    session: SessionFile | None = field(default=None, repr=False)
    """The training a window started."""
    has_checkpoint: bool = False
    """Whether there is something to continue from."""

    @property
    def name(self) -> str:
        """The brain's name."""
        return self.folder.name

    @property
    def can_continue(self) -> bool:
        """Whether a training may go on from here."""
        return self.state is not State.RUNNING and self.has_checkpoint

    @property
    def progress(self) -> str:
        """Steps done, of how many where that is known."""
        return progress_text(self.step, self.steps)


def list_brains(bundle_dir: Path, outlines: Outlines | None = None) -> list[Brain]:
    """The brains under `bundle_dir`, the one written to last first; folders without rights are left out.

    A `~` that begins it is the home folder, as in the settings of a run: the window hands on what stands in its form.
    `outlines`, kept between calls, spares reading the logs anew.
    """
    outlines = outlines or Outlines()
    try:
        folders = [
            path for path in expanded(bundle_dir).iterdir() if path.is_dir() and not path.name.startswith(DELETED)
        ]
    except OSError:
        return []  # the form says what is wrong with the folder
    brains = [brain for folder in folders if (brain := read_brain(folder, outlines)) is not None]
    return sorted(brains, key=lambda brain: brain.modified, reverse=True)


def read_brain(folder: Path, outlines: Outlines | None = None, started: SessionFile | None = None) -> Brain | None:
    """What is known of the brain in `folder`; None where nothing was ever trained there, or it cannot be read.

    `outlines`, kept between calls, spares reading the log anew. `started` is the training that the caller knows
    to run there: as long as that lives, it counts where the folder, moved or deleted, tells of none.
    """
    session = read_session(folder)
    if session is None and started is not None and started.alive:
        session = started
    log = Path(session.log) if session is not None else folder / LOG_FILE
    try:
        modified = log.stat().st_mtime if log.is_file() else 0.0
        held = is_held(folder)
        if session is None and not modified and not held and not holds_brain(folder):
            return None
        records = list(tail_records(log)) if modified else []
        outline = (outlines or Outlines()).of(log) if modified else RunHistory()
    except (OSError, UserError):
        return None
    if session is not None and not session.alive and (held or _taken_over(session, modified)):
        session = None
    state, sentence = judge(session, records, held)
    step = _newest_step(records)
    evals, best = outline.series("eval_loss"), outline.best_evaluation()
    return Brain(
        folder, log, state, step, _last_step(session, outline),
        loss=_newest_loss(records),
        eval_loss=_finite(float(evals.mean[-1])) if len(evals) else None,
        best_loss=best[1] if best is not None else None,
        sentence=sentence, modified=modified, session=session, has_checkpoint=bool(list_checkpoints(folder)),
    )  # fmt: skip


def is_held(folder: Path) -> bool:
    """Whether a process holds the brain's lock."""
    with LOOKING:
        return holder_of(folder) is not None


def is_training(folder: Path) -> bool:
    """Whether the brain in `folder` is being trained, by whomever, or about to be by a window."""
    session = read_session(folder)
    return (session is not None and session.alive) or is_held(folder)


def _newest_step(records: list[dict[str, Any]]) -> int:
    """How far the training has come: a sitting of all workers counts from where it began, not from the one before."""
    step = 0
    for record in records:
        if type(told := record.get("step")) is int:
            begins = record.get("event") in BEGINNINGS and record.get("rank") is None
            step = told if begins else max(step, told)
    return step


def _newest_loss(records: list[dict[str, Any]]) -> float | None:
    """The loss that a run closes with, else that of its newest step; None: none, or not finite."""
    for record in reversed(records):
        if record.get("event") == "final" and (loss := _finite(number(record, "loss"))) is not None:
            return loss
        if record.get("event") == "train":
            return _finite(number(record, "ce"))
    return None


def _last_step(session: SessionFile | None, outline: RunHistory) -> int | None:
    """Where the newest sitting ends: as its log says, and before that as a window asked for."""
    if session is not None and not outline.started >= session.started:  # NaN: no sitting at all
        return session.steps
    return outline.total_steps


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _taken_over(session: SessionFile, log_modified: float) -> bool:
    """Whether a training that no window started went on with the log: it printed elsewhere than the session did."""
    output = Path(session.output)
    return output.exists() and log_modified > output.stat().st_mtime + GROWING_SECONDS


def judge(session: SessionFile | None, records: list[dict[str, Any]], held: bool) -> tuple[State, str]:
    """(state, sentence) of a training from its session file and the newest records of its log.

    `held` says that a process, whoever started it, holds the brain's lock.
    """
    if held or (session is not None and session.alive):
        return State.RUNNING, ""
    since = session.started if session is not None else 0.0
    ending = _ending(records, since)
    if ending is not None and ending.get("event") == "final":
        return State.FINISHED, ""
    if ending is not None and ending.get("reason") != "trouble":
        paused = session is not None and session.asked == "pause"
        return State.PAUSED if paused else State.STOPPED, ""
    if session is not None and session.asked == "kill":
        return State.KILLED, "The training was killed; it continues from its newest checkpoint."
    if session is not None:
        return State.FAILED, last_error(Path(session.output))
    if ending is not None:
        return State.FAILED, "The training stopped in trouble; its last good state was saved."
    return State.UNFINISHED, ""


def _ending(records: list[dict[str, Any]], since: float) -> dict[str, Any] | None:
    """The record that closed the newest sitting, if it began after `since` and was closed."""
    for record in reversed(records):
        if (_finite(number(record, "ts")) or 0.0) < since or record.get("event") in _GOES_ON:
            return None
        if record.get("event") in ("final", "stopped"):
            return record
    return None


def tail_records(log: Path) -> Iterator[dict[str, Any]]:
    """The records in the last part of a log, oldest first; lines that are no record are passed over."""
    for line in tail(log).split(b"\n"):
        record = record_of(line)
        if record is not None:
            yield record


def free_name(bundle_dir: Path, name: str, queued: Collection[Path] = ()) -> str:
    """`name`, or `name-2`, `name-3`, ... : the first that no brain and no training has, nor one of those `queued`.

    Where `name` itself is such a numbered one of a name that is taken, the count goes on from there.
    """

    def is_free(folder: Path) -> bool:
        return folder.absolute() not in queued and not holds_brain(folder) and read_session(folder) is None

    first, _, count = name.rpartition("-")
    counts = first and count.isdecimal() and len(count) < 5 and not is_free(bundle_dir / first)
    first, begin = (first, int(count) + 1) if counts else (name, 2)
    candidates = (name, *(numbered(first, number) for number in range(begin, begin + 10_000)))
    return next(n for n in candidates if is_free(bundle_dir / n))


def locate(target: Path) -> tuple[Path, Path]:
    """(log, brain folder) that `target`, a log or a brain's folder, means."""
    if target.is_dir():
        session = read_session(target)
        return (Path(session.log) if session is not None else target / LOG_FILE), target
    return target, target.parent
