"""From a path that somebody typed to a run's history, whole or followed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from aios.errors import UserError
from aios.file_names import LOG_FILE
from aios.run_view.follow import POLL_BYTES, TRAIN_LINE, LogFollower
from aios.run_view.history import RunHistory


class FollowedRun:
    """A log and the history of what it held so far; a log that was replaced starts a new history.

    An `outline` leaves the training steps out: it knows the plan of the run, its evaluations and its events, and is
    read more than ten times faster.
    """

    def __init__(self, path: Path, outline: bool = False) -> None:
        self.follower = LogFollower(path, TRAIN_LINE if outline else None)
        self.history = RunHistory()

    def refresh(self, max_bytes: int = POLL_BYTES) -> bool:
        """Take what is new, at most `max_bytes` of it; whether there was anything, a restart included.

        Raises:
            UserError: when the file is there but cannot be read.
        """
        records = self.follower.poll(max_bytes)
        if self.follower.restarted:
            self.history = RunHistory()
        self.history.add(records)
        return bool(records) or self.follower.restarted

    def catch_up(self) -> RunHistory:
        """The history of all that the log holds now.

        Raises:
            UserError: when the file is there but cannot be read.
        """
        self.refresh()
        while not self.follower.at_end:
            self.refresh()
        return self.history


class Outlines:
    """The outlines of the logs in a list of runs; what was read of one is not read again."""

    def __init__(self) -> None:
        self._runs: dict[Path, FollowedRun] = {}

    def of(self, log: Path) -> RunHistory:
        """What the log holds now, apart from its training steps.

        Raises:
            UserError: when the file is there but cannot be read.
        """
        if log not in self._runs:
            self._runs[log] = FollowedRun(log, outline=True)
        return self._runs[log].catch_up()


def log_at(path: Path) -> Path | None:
    """The log that `path` names, itself or the one in the brain's folder; None while there is none."""
    if path.is_dir():
        inside = path / LOG_FILE
        return inside if inside.is_file() else None
    return path if path.exists() else None


def find_log(path: Path) -> Path:
    """The log that `path` names: itself, or the one in the brain's folder.

    Raises:
        UserError: when there is none.
    """
    log = log_at(path)
    if log is not None:
        return log
    if path.is_dir():
        raise UserError(f"The folder {path} holds no {LOG_FILE}; give a training log or the folder of a brain.")
    raise UserError(f"There is no log {path}; give a training log ({LOG_FILE}) or the folder of a brain.")


def read_history(path: Path) -> RunHistory:
    """The whole log at `path` (a log or a brain's folder), as it is now.

    Raises:
        UserError: when there is none, or it is no training log.
    """
    log = find_log(path)
    run = FollowedRun(log)
    run.catch_up()
    if (no_log := run.follower.no_log) is not None:
        raise UserError(no_log)
    if run.history.records == 0:
        raise UserError(f"{log} holds no records of a training run; give a {LOG_FILE} that `aios hrm-hf train` wrote.")
    return run.history


def labels_of(paths: Sequence[Path], histories: Sequence[RunHistory]) -> list[str]:
    """A name for each run: its brain's, else the file's; told apart by folder, then by number, where they are alike."""
    names = [_name(path, history) for path, history in zip(paths, histories, strict=True)]
    if len(set(names)) < len(names):
        folders = [(path if path.is_dir() else path.parent).resolve() for path in paths]
        names = [f"{folder.name}/{name}" if folder.name != name else f"{folder.parent.name}/{name}"
                 for folder, name in zip(folders, names, strict=True)]  # fmt: skip
    seen: dict[str, int] = {}
    for at, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] > 1:
            names[at] = f"{name} ({seen[name]})"
    return names


def _name(path: Path, history: RunHistory) -> str:
    brain = history.config.get("brain_name")
    if isinstance(brain, str) and brain:
        return brain
    return path.name if path.is_dir() or path.name != LOG_FILE else path.resolve().parent.name
