"""A brain's folder renamed or deleted. No Tk here.

Only a brain of ours is moved or deleted: a real folder right in the folder of brains, with something that a training
leaves. Meanwhile its lock is held here, so that no training of it begins.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from aios.brains.brain_list import DELETED, LOOKING, Brain, is_training
from aios.brains.notes import NOTES_FILE
from aios.brains.printed_output import OUTPUT_FILE
from aios.brains.session_file import SESSION_FILE, read_session
from aios.errors import UserError
from aios.file_names import BEST_FOLDER, BRAIN_FILE, CHECKPOINTS_FOLDER, LOG_FILE, STOP_FILE
from aios.gui.wording import in_window_words
from aios.run_view.reading import Outlines
from aios.runs.brain import list_checkpoints, read_card
from aios.runs.brain_name import why_not_a_name
from aios.runs.lock import LOCK_FILE, BrainLock

_OURS = (
    *(CHECKPOINTS_FOLDER, BEST_FOLDER, BRAIN_FILE, LOG_FILE, STOP_FILE),
    *(SESSION_FILE, OUTPUT_FILE, NOTES_FILE, LOCK_FILE),
    *(".*.new", ".partial-*", "*.folder-[0-9]*"),
)


class Contents(NamedTuple):
    """What a brain's folder holds."""

    files: int
    """How many files, those in folders included."""
    bytes: int
    """Their size."""
    strange: list[str]
    """What lies right in it and is not from a training."""


def why_not_renamed(brain: Brain, name: str) -> str | None:
    """Why the brain cannot be called `name`, one sentence; None when it can."""
    reason = why_not_a_name(name)
    if reason is not None:
        return in_window_words(f"A brain cannot be called that: {reason}.")
    target = brain.folder.with_name(name)
    if os.path.lexists(target) and not _is_same(brain.folder, target):
        return f"There is a “{name}” in {target.parent} already; choose another name."
    return None


def rename_brain(brain: Brain, name: str) -> Path:
    """Call the brain `name`; returns its folder, which has the name.

    Raises:
        UserError: when it cannot be, or is being trained.
    """
    reason = why_not_renamed(brain, name)
    if reason is not None:
        raise UserError(reason)
    target = brain.folder.with_name(name)
    _move(brain, target)
    session = read_session(target)
    if session is not None:
        log, stop_file, output = (
            _moved(place, brain.folder, target) for place in (session.log, session.stop_file, session.output)
        )
        replace(session, log=log, stop_file=stop_file, output=output).save(target)
    return target


def delete_brain(brain: Brain) -> None:
    """Delete the brain's folder with all that is in it; a log that lies elsewhere stays.

    Raises:
        UserError: when it cannot be, or is being trained.
    """
    gone = brain.folder.with_name(f"{DELETED}{os.getpid()}-{time.time_ns()}")
    _move(brain, gone)  # first, so that nothing begins in it, and no list shows half of it
    try:
        shutil.rmtree(gone)
    except OSError as error:
        raise UserError(f"Not all of the brain could be deleted ({error.strerror}); the rest is in {gone}.") from error


def contents(folder: Path) -> Contents:
    """What there is in a brain's folder.

    Raises:
        UserError: when it cannot be read.
    """
    try:
        return _contents(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); who may read it?") from error


def _contents(folder: Path) -> Contents:
    sizes = [os.lstat(os.path.join(path, name)).st_size for path, _, names in os.walk(folder) for name in names]
    ours = {path.name for checkpoint in list_checkpoints(folder) for path in checkpoint.iterdir()}
    entries = sorted(path.name for path in folder.iterdir())
    strange = [name for name in entries if name not in ours and not any(fnmatch(name, mark) for mark in _OURS)]
    return Contents(len(sizes), sum(sizes), strange)


def _move(brain: Brain, target: Path) -> None:
    """Give the brain's folder another name, while nobody trains it."""
    folder = brain.folder
    reason = _why_not_ours(folder)
    if reason is not None:
        raise UserError(f"{folder} {reason}; it is left alone. Move or delete it by other means.")
    if is_training(folder):
        raise UserError(f"“{brain.name}” is being trained; stop it first.")
    try:
        with LOOKING, BrainLock(folder):
            folder.rename(target)
            (target / LOCK_FILE).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot become {target} ({error.strerror}); free the folder.") from error
    except UserError as error:
        raise UserError(in_window_words(str(error))) from error


def _why_not_ours(folder: Path) -> str | None:
    """What speaks against its being a brain that was trained here; None: nothing does."""
    if why_not_a_name(folder.name) is not None or not folder.is_dir():
        return "is no folder of a brain"
    if folder.is_symlink():
        return "is a link to a folder elsewhere"
    cards = (read_card(place) for place in (folder, *list_checkpoints(folder)))
    if read_session(folder) is not None or any(card is not None for card in cards):
        return None
    log = folder / LOG_FILE
    if log.is_file() and not log.is_symlink() and Outlines().of(log).records > 0:
        return None
    return "holds no card, no training and no log of a brain"


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one folder: where a file system takes large and small letters for the same."""
    return other.exists() and one.samefile(other)


def _moved(path: str, old: Path, new: Path) -> str:
    """Where `path` is once the folder `old` is `new`."""
    inside = Path(path).is_relative_to(old.absolute())
    return str(new.absolute() / Path(path).relative_to(old.absolute())) if inside else path
