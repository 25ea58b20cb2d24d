"""The notes on a brain, in its folder."""

from __future__ import annotations

from pathlib import Path

from aios.errors import UserError
from aios.files import read_at_most, replace_file

NOTES_FILE = "notes.txt"
"""Beside the brain, in UTF-8: nothing but the window writes it, and it goes with the folder wherever that goes."""
MOST_NOTES = 16 * 1024
"""Bytes of a note at most."""


def read_notes(folder: Path) -> str:
    """The notes on the brain in `folder`; empty where there are none that can be read."""
    try:
        found = read_at_most(folder / NOTES_FILE, MOST_NOTES, follow=False)  # it may be a stranger's link
    except OSError:
        return ""
    return found[:MOST_NOTES].decode("utf-8", errors="replace").strip()


def write_notes(folder: Path, text: str) -> None:
    """Keep `text` as the notes on the brain in `folder`; an empty one takes them away.

    Raises:
        UserError: when it is too long, or cannot be written.
    """
    path, written = folder / NOTES_FILE, text.strip().encode("utf-8", "replace")
    if len(written) > MOST_NOTES:
        raise UserError(f"The notes are {len(written):,} bytes long; shorten them to {MOST_NOTES:,}.")
    try:
        if written:
            replace_file(path, lambda file: file.write(written + b"\n"), over_folder=True)
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); free the folder.") from error
