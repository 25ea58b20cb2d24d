"""Whether anything can be saved in a folder, found out before a run begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

from aios.errors import UserError


def check_writable(folder: Path, flag: str) -> None:
    """Refuse, before anything is made, a folder named by `flag` that nothing can be saved in.

    Raises:
        UserError: when the folder, or the nearest parent that exists, is a file, a link that leads nowhere, or cannot
            be written in, or when there can be no such folder.
    """
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if _is_there(path))
        if not existing.is_dir():
            what = "a link to nowhere" if existing.is_symlink() and not existing.exists() else "a file"
            raise UserError(f"{existing} is {what}, so nothing can be saved in {folder}; choose another {flag}.")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(
            f"Nothing can be saved in {folder} ({error.strerror}); choose another {flag} or free it."
        ) from error


def _is_there(path: Path) -> bool:
    """Whether anything is, a link to nowhere too; raises OSError for a path that nothing can have."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
