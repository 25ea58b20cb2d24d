"""Checkpoints that are complete or invisible.

A checkpoint is written into a hidden folder beside its place, with a manifest of sizes and SHA-256 hashes last;
everything is fsynced, then the folder is renamed. A crash at any moment leaves the old checkpoints untouched and
at most a hidden leftover, which the next save clears away. A step saved again takes the place of the one before by two
renames; a crash between them leaves that one set aside, where it still counts, and the next save puts it back. Nothing
here is ever unpickled: weights are safetensors, the rest is loaded with `weights_only=True`.
"""

from __future__ import annotations

import os
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aios.errors import UserError, is_out_of_memory
from aios.files import fsync
from aios.runs.brain import SET_ASIDE, checkpoint_dir, checkpoint_step, is_set_aside, list_checkpoints
from aios.runs.checkpoint_state import find_flaw
from aios.runs.manifest import STATE_FILE, Stamp, find_file_damage, stamp, write_manifest

FORMAT_VERSION = 2
"""2: `adaptive_lr` holds all that `AutoLR` learned; 1: a part of it, beside `lr_plan`."""
_PARTIAL_PREFIX = ".partial-"
REMEDY = "move the checkpoint away to resume from the one before"
"""What helps against one that looks whole and is not."""
UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError, OSError),
    *(AssertionError, ArithmeticError, struct.error),
)
"""What torch raises for a file that it did not write; RuntimeError also where memory has run out."""
_judged: dict[Path, tuple[Stamp, str | None]] = {}
"""What this process found when it last read a checkpoint whole, and the stamp of its files then."""


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was passed over when loading, and why."""

    path: Path
    """Its folder."""
    reason: str
    """What is wrong with it."""

    def __str__(self) -> str:
        return f"Skipped the damaged checkpoint {self.path}: {self.reason}."


@dataclass(frozen=True)
class SavedCheckpoint:
    """Where a checkpoint went and what it cost."""

    path: Path
    """Its folder."""
    bytes: int
    """Size of its files."""
    seconds: float
    """Time that writing it took."""


def save_checkpoint(
    brain_dir: Path,
    state: dict[str, Any],
    save_weights: Callable[[Path], None],
    keep: int,
    partial: Path | None = None,
    spared: int | None = None,
) -> SavedCheckpoint:
    """Write `state` and the weights as `checkpoints/step-<n>`; drop what is older than the `keep` newest valid ones,
    but for that of the step `spared`.

    `save_weights` writes the model's files into the folder it is given; `state["step"]` names the checkpoint.
    `partial` comes from `open_partial` where other processes have written their files into it: all of them by now.

    The new checkpoint is never dropped, nor is a damaged one before `keep` valid ones are newer than it: it can be
    looked into until then, but does not count. An old checkpoint is read whole once per process, and only when
    something is about to be dropped.
    """
    begun = time.perf_counter()
    folder = checkpoint_dir(brain_dir)
    final = checkpoint_path(brain_dir, state["step"])
    partial = partial or open_partial(brain_dir, state["step"])
    save_weights(partial)
    torch.save({**state, "format_version": FORMAT_VERSION}, partial / STATE_FILE)
    size = write_manifest(partial, FORMAT_VERSION)
    if os.path.lexists(final):  # the same step saved again, after a resume that went back behind it
        final.rename(folder / f"{SET_ASIDE}{final.name}")
    partial.rename(final)
    fsync(folder)
    _remember(final, None)
    clear_leftovers(brain_dir, set_aside=True)
    _prune(brain_dir, final, keep, spared)
    return SavedCheckpoint(final, size, time.perf_counter() - begun)


def open_partial(brain_dir: Path, step: int) -> Path:
    """A new, hidden folder for the checkpoint of `step`; what crashes left is put back or cleared away."""
    folder = checkpoint_dir(brain_dir)
    folder.mkdir(parents=True, exist_ok=True)
    put_back(brain_dir)
    clear_leftovers(brain_dir, set_aside=True)
    partial = partial_path(brain_dir, step, os.getpid())
    partial.mkdir()
    return partial


def put_back(brain_dir: Path) -> None:
    """Give a checkpoint that a crash left set aside its place again, unless a valid one has it.

    For a process that no other one resumes or saves beside.
    """
    for aside in filter(is_set_aside, list_checkpoints(brain_dir)):
        place = aside.with_name(aside.name.removeprefix(SET_ASIDE))
        if os.path.lexists(place) and find_damage(place) is None:
            continue  # it was replaced, but not yet cleared away
        _drop(place)
        aside.rename(place)


def partial_path(brain_dir: Path, step: int, process: int) -> Path:
    """The hidden folder that process number `process` opens for the checkpoint of `step`."""
    return checkpoint_dir(brain_dir) / f"{_PARTIAL_PREFIX}step-{step}-{process}"


def checkpoint_path(brain_dir: Path, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return checkpoint_dir(brain_dir) / f"step-{step}"


def newest_valid(brain_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest checkpoint that is whole and can be resumed, and those that were skipped for it."""
    skipped: list[Skipped] = []
    for path in list_checkpoints(brain_dir):
        damage = find_damage(path)
        if damage is None:
            return path, skipped
        skipped.append(Skipped(path, damage))
    return None, skipped


def find_damage(path: Path) -> str | None:
    """Why a run cannot resume from a checkpoint folder, or None when it can; reads every byte of it.

    One of a newer format is not damaged: `load_state` says what to do about it.
    """
    before = stamp(path)
    damage = find_file_damage(path)
    if damage is None:
        damage = _find_state_damage(path)
    if before is not None and before == stamp(path):
        _judged[path] = before, damage
    return damage


def clear_leftovers(brain_dir: Path, set_aside: bool) -> None:
    """Clear away what saves that failed or were killed have left, so that its room is free again.

    `set_aside`: whether checkpoints that were set aside go, too, as they may where others have their places. For a
    process that no other one saves beside.
    """
    for leftover in checkpoint_dir(brain_dir).glob(_PARTIAL_PREFIX + "*"):
        if set_aside or not is_set_aside(leftover):
            _remove(leftover)


def load_state(path: Path) -> dict[str, Any]:
    """The checkpoint dict of a valid checkpoint, on the CPU; never runs code from the file.

    Raises:
        UserError: when it was written by a newer version of the format, or is none that a run can resume from.
    """
    try:
        state = _read_state(path)
    except UNREADABLE as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{_unreadable(path, error)}; {REMEDY}.") from error
    if _format_of(state) > FORMAT_VERSION:
        raise UserError(
            f"{path} has checkpoint format {_format_of(state)}, newer than the {FORMAT_VERSION} this version of "
            "aios reads; update aios."
        )
    check_state(state, path)
    loaded: dict[str, Any] = state
    return loaded


def check_state(state: Any, path: Path) -> None:
    """Check that a run can resume from `state`, the checkpoint dict that was found in `path`.

    Raises:
        UserError: when it cannot.
    """
    flaw = find_flaw(state, checkpoint_step(path))
    if flaw is not None:
        raise UserError(f"{path} cannot be resumed: {flaw}; {REMEDY}.")


def _find_state_damage(path: Path) -> str | None:
    try:
        state = _read_state(path)
    except UNREADABLE as error:
        if is_out_of_memory(error):  # the next older one would do no better
            raise
        return _unreadable(path, error)
    if _format_of(state) > FORMAT_VERSION:
        return None
    flaw = find_flaw(state, checkpoint_step(path))
    return None if flaw is None else f"in {STATE_FILE} {flaw}"


def _read_state(path: Path) -> Any:
    # Mapped, not read: of the state of many workers each uses its own part only.
    return torch.load(path / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)


def _unreadable(path: Path, error: BaseException) -> str:
    return f"{path / STATE_FILE} cannot be read ({type(error).__name__})"


def _format_of(state: Any) -> int:
    """The format's version; 0 where there is none."""
    version = state.get("format_version") if isinstance(state, dict) else None
    return version if type(version) is int else 0


def _prune(brain_dir: Path, newest: Path, keep: int, spared: int | None) -> None:
    """Drop the checkpoints below `newest`, which has just been saved, and below `keep` valid ones; not the spared."""
    checkpoints = list_checkpoints(brain_dir)
    if len(checkpoints) <= keep:
        return
    valid, passed = 0, False
    for path in checkpoints:
        if passed and valid >= keep:
            if checkpoint_step(path) != spared:
                _drop(path)
        elif path == newest:
            valid, passed = valid + 1, True
        elif last_damage(path) is None:
            valid += 1


def last_damage(path: Path) -> str | None:
    """`find_damage`, without reading again what has not been touched since."""
    known = _judged.get(path)
    return known[1] if known is not None and known[0] == stamp(path) else find_damage(path)


def _remember(path: Path, damage: str | None) -> None:
    found = stamp(path)
    if found is not None:
        _judged[path] = found, damage


def _drop(path: Path) -> None:
    """Remove a checkpoint, so that a crash meanwhile leaves none that is half removed."""
    if os.path.lexists(path):
        _judged.pop(path, None)
        hidden = path.with_name(f"{_PARTIAL_PREFIX}dropped-{path.name}-{os.getpid()}")
        path.rename(hidden)
        _remove(hidden)


def _remove(path: Path) -> None:
    """Delete a folder or file; what cannot be deleted stays hidden, for the next save to try again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
