"""Runs that wait for their turn: a folder of settings files, so that they outlive the window. No Tk here.

Each file is one that `aios hrm-hf train --config` takes; paths in it are absolute, since the next window may be opened
elsewhere. The lowest number starts first, unless the file `order` has another order. A file keeps its name to the end:
of several windows one gets a number, and the one that takes a file away first starts its run.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from aios.errors import UserError
from aios.files import replace_file
from aios.gui.wording import in_window_words
from aios.places import config_folder
from aios.settings.config import TrainingConfig, path_fields
from aios.settings.config_file import load_config_file, save_config_file

_MOST = 999
_NUMBERED, _ORDER = "[0-9][0-9][0-9][0-9].toml", "order"


@dataclass(frozen=True)
class QueuedRun:
    """One run that waits."""

    file: Path
    """Its settings."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the file says, by field of `TrainingConfig`."""
    config: TrainingConfig | None = None
    """What that means; None: nothing any more."""
    problem: str = ""
    """Why it was passed over, one sentence; empty: it was not."""

    @property
    def name(self) -> str:
        """Its brain's name, or that of its file where the settings cannot be read."""
        return str(self.settings.get("brain_name", self.file.name if self.config is None else self.config.brain_name))


class RunQueue:
    """The runs that wait, first come first."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or config_folder() / "queue"
        self._problems: dict[Path, str] = {}

    @property
    def runs(self) -> list[QueuedRun]:
        """Those that wait, in their order; those passed over are among them."""
        return [self._read(file) for file in self._files()]

    @property
    def next(self) -> QueuedRun | None:
        """The first that was not passed over."""
        return next((run for run in self.runs if not run.problem), None)

    @property
    def brains(self) -> set[Path]:
        """The folders of the brains that wait to be trained."""
        return {run.config.brain_dir for run in self.runs if run.config is not None}

    def add(self, config: TrainingConfig) -> QueuedRun:
        """Let a run wait behind all others.

        Raises:
            UserError: when a run of that brain waits already, there are too many, or the file cannot be written.
        """
        config = with_whole_paths(config)
        if config.brain_dir in self.brains:
            raise UserError(f"A run of “{config.brain_name}” is queued already; choose another brain name.")
        file = self._claimed()
        try:
            save_config_file(config, file)
        except BaseException:  # an interruption, too: a number that stays claimed is never started
            file.unlink(missing_ok=True)
            raise
        return self._read(file)

    def take(self, run: QueuedRun) -> bool:
        """Take a run out, to start or to forget it; False when it is not there any more, taken by another window say.

        Raises:
            UserError: when its file cannot be taken away.
        """
        if not self._is_there(run):
            return False
        try:
            run.file.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise UserError(f"{run.file} cannot be taken away ({error.strerror}); free the folder.") from error
        self._problems.pop(run.file, None)
        return True

    def pass_over(self, run: QueuedRun, problem: str) -> None:
        """Leave a run waiting that cannot start now, and why; the next one gets its turn."""
        self._problems[run.file] = problem

    def move(self, run: QueuedRun, by: int) -> None:
        """Let a run change places with the one before (-1) or behind it (1), if there is one.

        Raises:
            UserError: when the order cannot be written down.
        """
        files = self._files()
        to = files.index(run.file) + by if self._is_there(run) else -1
        if not 0 <= to < len(files):
            return
        files.remove(run.file)
        files.insert(to, run.file)
        order = "".join(f"{file.name}\n" for file in files).encode()
        try:
            replace_file(self._folder / _ORDER, lambda file: file.write(order), first=f".{_ORDER}-{os.getpid()}.new")
        except OSError as error:
            raise UserError(f"The order of {self._folder} cannot be changed ({error.strerror}).") from error

    def _claimed(self) -> Path:
        """An empty file behind all others, which no other window can get any more."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            numbered = [file.name for file in self._folder.glob(_NUMBERED)]
            if not numbered:
                (self._folder / _ORDER).unlink(missing_ok=True)  # of runs that are gone; their numbers come again
            last = max([*numbered, *self._order()], default="0000.toml")
            for number in range(int(last.removesuffix(".toml")) + 1, _MOST + 1):
                with suppress(FileExistsError):
                    file = self._folder / f"{number:04d}.toml"
                    file.open("x").close()
                    return file
        except OSError as error:
            raise UserError(f"{self._folder} takes no file ({error.strerror}); the run is not queued.") from error
        raise UserError(f"The queue is full: its last number is {_MOST}; remove some runs.")

    def _is_there(self, run: QueuedRun) -> bool:
        """Whether the run still is in its file; another may have got the number when it was taken out."""
        return run.file.is_file() and self._read(run.file).settings == run.settings

    def _files(self) -> list[Path]:
        """Those of the runs, in their order; an empty one is a number that was claimed and is about to be written."""
        order = {name: place for place, name in enumerate(self._order())}
        files = [file for file in self._folder.glob(_NUMBERED) if _is_written(file)]
        return sorted(files, key=lambda file: (order.get(file.name, len(order)), file.name))

    def _order(self) -> list[str]:
        """The names of the files that were put in order; those of runs that were taken out since are among them."""
        try:
            lines = (self._folder / _ORDER).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        return [line for line in lines if fnmatch(line, _NUMBERED)]

    def _read(self, file: Path) -> QueuedRun:
        settings: dict[str, Any] = {}
        try:
            settings = load_config_file(file)
            return QueuedRun(file, settings, TrainingConfig(**settings), self._problems.get(file, ""))
        except UserError as error:
            return QueuedRun(file, settings, problem=in_window_words(str(error)))


def _is_written(file: Path) -> bool:
    try:
        return file.is_file() and file.stat().st_size > 0
    except FileNotFoundError:  # taken out between the two questions
        return False


def with_whole_paths(config: TrainingConfig) -> TrainingConfig:
    """The same run, whatever the current folder is."""
    given = {name: getattr(config, name) for name in path_fields()}
    if config.model is not None and os.path.exists(config.model):  # else it is a name
        given["model"] = config.model
    return dataclasses.replace(config, **{name: os.path.abspath(path) for name, path in given.items() if path})
