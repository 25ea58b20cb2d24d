"""A disk that takes no more, full or failing, said in one sentence: where, what is needed and free, what is kept."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aios.errors import RunError, UserError
from aios.quantities import show_bytes
from aios.runs.brain import checkpoint_step
from aios.runs.checkpoints import newest_valid
from aios.runs.lock import BrainLock

_FULL = (errno.ENOSPC, errno.EDQUOT)
_OS_ERROR = re.compile(r"\(os error (\d+)\)|Os \{ code: (\d+)")
"""How safetensors and tokenizers, which are written in Rust, name an error of the system in their own exceptions."""
_TORCH_WRITER = re.compile(r"PytorchStreamWriter|inline_container|unexpected pos|iostream error")
"""What `torch.save` says when a write fails; it names no cause."""


class StorageError(RunError):
    """Log, checkpoint or brain could not be written: the run cannot go on, and saving again would fail as well."""


@contextmanager
def writing(folder: Path, brain_dir: Path, needed: int = 0) -> Iterator[None]:
    """Around everything that writes into `folder` for the brain in `brain_dir`; `needed` bytes, 0: next to nothing.

    Raises:
        StorageError: when the system or a library could not write.
    """
    try:
        yield
    except Exception as error:  # broad, because Rust libraries raise plain Exception; all others are raised again
        number = _error_number(error, folder, needed)
        if number is None:
            raise
        raise StorageError(f"{_trouble(number, folder, needed)}; {_kept(brain_dir, number)}") from error


def hold_on(lock: BrainLock, brain_dir: Path) -> None:
    """Keep the brain closed to others, also where its folder was deleted or moved: before anything is written there.

    Raises:
        StorageError: when another run trains a brain there by now, or the folder cannot be made again.
    """
    try:
        with writing(brain_dir, brain_dir):
            lock.renew()
    except UserError as error:
        raise StorageError(
            f"{brain_dir} had been taken away, and nothing of this run is saved there: {error}"
        ) from error


def _error_number(error: Exception, folder: Path, needed: int) -> int | None:
    """The system's number of a failed write; None for an exception that says something else."""
    if isinstance(error, (UserError, RunError)):
        return None
    if isinstance(error, OSError):
        return error.errno
    if (match := _OS_ERROR.search(str(error))) is not None:
        return int(match[1] or match[2])
    if isinstance(error, RuntimeError) and _TORCH_WRITER.search(str(error)):
        return errno.ENOSPC if _free(folder) < max(needed, 1 << 20) else errno.EIO
    return None


def _trouble(number: int, folder: Path, needed: int) -> str:
    reason = os.strerror(number)
    if number not in _FULL:
        return f"{folder} cannot be written any more ({reason})"
    need = f"about {show_bytes(needed)} are needed" if needed else "the log needs some room"
    return f"The disk {_disk(folder)} is full ({reason}): {need} in {folder} and {show_bytes(_free(folder))} are free"


def _kept(brain_dir: Path, number: int) -> str:
    """What of the run is safe, and what to do."""
    remedy = "once there is room" if number in _FULL else "once it can be written"
    with suppress(OSError, MemoryError):  # a disk that cannot be read either
        path, _ = newest_valid(brain_dir)
        if path is not None:
            return f"everything up to step {checkpoint_step(path)} is saved: continue with --resume {remedy}."
    return f"nothing is saved yet: start again {remedy}."


def _disk(folder: Path) -> Path:
    """Where the file system that holds `folder` is mounted."""
    existing = folder.absolute()
    return next(path for path in (existing, *existing.parents) if os.path.ismount(path) or path == path.parent)


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(existing).free
