"""Checkpoints that are complete or invisible.

A checkpoint is written into a hidden folder beside its place, with a manifest of sizes and SHA-256 hashes last;
everything is fsynced, then the folder is renamed. A crash at any moment leaves the old checkpoints untouched and
at most a hidden leftover, which the next save clears away. Nothing here is ever unpickled: weights are
safetensors, the rest is loaded with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aios.errors import UserError
from aios.runs.brain import checkpoint_dir, list_checkpoints

FORMAT_VERSION = 1
STATE_FILE = "state.pt"
MANIFEST_FILE = "manifest.json"
_PARTIAL_PREFIX = ".partial-"


@dataclass(frozen=True)
class Skipped:
    """A checkpoint that was passed over when loading, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class SavedCheckpoint:
    """Where a checkpoint went and what it cost."""

    path: Path
    bytes: int
    seconds: float


def save_checkpoint(
    brain_dir: Path,
    state: dict[str, Any],
    save_weights: Callable[[Path], None],
    keep: int,
    partial: Path | None = None,
) -> SavedCheckpoint:
    """Write `state` and the weights as `checkpoints/step-<n>`; drop all but the `keep` newest.

    `save_weights` writes the model's files into the folder it is given; `state["step"]` names the checkpoint.
    `partial` comes from `open_partial` where other processes have written their files into it: all of them by now.
    """
    begun = time.perf_counter()
    folder = checkpoint_dir(brain_dir)
    final = checkpoint_path(brain_dir, state["step"])
    partial = partial or open_partial(brain_dir, state["step"])
    save_weights(partial)
    torch.save({**state, "format_version": FORMAT_VERSION}, partial / STATE_FILE)
    size = _write_manifest(partial)
    if final.exists():  # the same step saved again, after a resume that went back behind it
        final.rename(folder / f"{_PARTIAL_PREFIX}replaced-{final.name}")
    partial.rename(final)
    _fsync(folder)
    _clear_partial(folder)
    for old in list_checkpoints(brain_dir)[keep:]:
        shutil.rmtree(old)
    return SavedCheckpoint(final, size, time.perf_counter() - begun)


def open_partial(brain_dir: Path, step: int) -> Path:
    """A new, hidden folder for the checkpoint of `step`; those that crashes left are cleared away."""
    folder = checkpoint_dir(brain_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _clear_partial(folder)
    partial = partial_path(brain_dir, step, os.getpid())
    partial.mkdir()
    return partial


def partial_path(brain_dir: Path, step: int, process: int) -> Path:
    """The hidden folder that process number `process` opens for the checkpoint of `step`."""
    return checkpoint_dir(brain_dir) / f"{_PARTIAL_PREFIX}step-{step}-{process}"


def checkpoint_path(brain_dir: Path, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return checkpoint_dir(brain_dir) / f"step-{step}"


def newest_valid(brain_dir: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest checkpoint whose every file is as the manifest says, and those that were skipped for it."""
    skipped: list[Skipped] = []
    for path in list_checkpoints(brain_dir):
        damage = find_damage(path)
        if damage is None:
            return path, skipped
        skipped.append(Skipped(path, damage))
    return None, skipped


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, or None when it is whole."""
    try:
        manifest = json.loads((path / MANIFEST_FILE).read_text(encoding="utf-8"))
        files = {str(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
    except FileNotFoundError:
        return "it has no manifest"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its manifest is damaged"
    for name, (size, digest) in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _sha256(file) != digest:
            return f"the contents of {name} do not match their checksum"
    return None


def discard_partial(brain_dir: Path) -> None:
    """Clear away what a save that failed has left, so that its room is free again; the next save clears the rest."""
    for leftover in checkpoint_dir(brain_dir).glob(_PARTIAL_PREFIX + "step-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def load_state(path: Path) -> dict[str, Any]:
    """The checkpoint dict of a valid checkpoint, on the CPU; never runs code from the file.

    Raises:
        UserError: when it was written by a newer version of the format.
    """
    # Mapped, not read: of the state of many workers each uses its own part only.
    state: dict[str, Any] = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True, mmap=True)
    if state["format_version"] > FORMAT_VERSION:
        raise UserError(
            f"{path} has checkpoint format {state['format_version']}, newer than the {FORMAT_VERSION} this version of "
            "aios reads; update aios."
        )
    return state


def _clear_partial(folder: Path) -> None:
    for leftover in folder.glob(_PARTIAL_PREFIX + "*"):
        shutil.rmtree(leftover)


def _write_manifest(folder: Path) -> int:
    """Fsync every file, then write the manifest that vouches for them; returns the bytes of the files."""
    entries: dict[str, dict[str, int | str]] = {}
    total = 0
    for file in _files(folder):
        _fsync(file)
        size = file.stat().st_size
        total += size
        entries[file.relative_to(folder).as_posix()] = {"size": size, "sha256": _sha256(file)}
    manifest = folder / MANIFEST_FILE
    manifest.write_text(json.dumps({"format_version": FORMAT_VERSION, "files": entries}, indent=1), encoding="utf-8")
    _fsync(manifest)
    _fsync(folder)
    return total


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
