"""Files that are replaced whole or not at all, and files that are read no further than a limit."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


class NotPlainError(OSError):
    """There is something, but no plain file: to read a pipe or a device might never end."""


def replace_file(
    path: Path,
    write: Callable[[BinaryIO], object],
    *,
    durable: bool = True,
    over_folder: bool = False,
    first: str | None = None,
) -> None:
    """Put what `write` writes in the place of `path`, whole, or leave all as it was.

    A `durable` file is on the disk when this returns. A folder in its place is an error, unless `over_folder` sets it
    aside under another name. `first` names the file beside `path` that is written first; where several processes may
    write at once, each needs a name of its own.

    Raises:
        OSError: when it cannot be written; whatever else `write` raises.
    """
    new = path.with_name(first or f".{path.name}.new")
    new.unlink(missing_ok=True)  # what a kill left; a link is not followed
    try:
        with new.open("xb") as file:
            write(file)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if over_folder and path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"{path.name}.folder-{time.time_ns()}"))
        new.replace(path)
    except BaseException:  # an interruption, too: what is half written belongs to nobody
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    if durable:
        fsync(path.parent)


def fsync(path: Path) -> None:
    """Wait until a file's contents, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_at_most(path: Path, most: int, follow: bool = True) -> bytes:
    """The first `most` bytes of a plain file, and one more where it is longer.

    `follow`: whether a link may lead to it.

    Raises:
        NotPlainError: where there is a folder, pipe or device, or a link that must not be followed.
        OSError: where there is no such file, or it cannot be read.
    """
    try:
        found = os.stat(path, follow_symlinks=follow)
    except ValueError as error:  # a NUL character in the name
        raise OSError(errno.EINVAL, str(error)) from error
    if not stat.S_ISREG(found.st_mode):
        raise NotPlainError(errno.EINVAL, "it is no regular file", str(path))
    with path.open("rb") as file:
        return file.read(most + 1)
