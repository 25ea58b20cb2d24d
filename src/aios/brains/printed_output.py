"""What a training that a window started prints: a file beside the brain, with a part for each sitting."""

from __future__ import annotations

import errno
import re
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

OUTPUT_FILE = "output.txt"
"""Beside the brain: what its training printed."""

_BEGINS = "===== "
_TAIL_BYTES = 256 * 1024
_ERROR = re.compile(r"(?:\[worker \d+\] )?Error: (.*)")


def open_output(path: Path, command: list[str]) -> BinaryIO:
    """The file for what `command` is about to print, open behind a line that says so; what earlier ones printed stays.

    What is no plain file, as in a brain from elsewhere, is taken away first: a link may lead to anything.

    Raises:
        OSError: where it cannot be written.
    """
    if path.is_symlink() or not path.is_file():
        path.unlink(missing_ok=True)
    stream = path.open("ab")
    try:
        gap = "\n" if stream.tell() else ""
        stream.write(f"{gap}{_BEGINS}{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n".encode())
        stream.flush()
    except OSError:
        stream.close()
        raise
    return stream


def last_error(output: Path) -> str:
    """The last error sentence in what the newest sitting printed, or that it left none."""
    try:
        text = tail_text(output)
    except OSError as error:
        return f"The training ended and its output cannot be read ({error.strerror})."
    said = [line.strip() for line in _newest_part(text.splitlines()) if line.strip()]
    return (
        error_sentence(said) or f"The training ended without saving; its last words: {said[-1] if said else '(none)'}"
    )


def error_sentence(lines: Sequence[str]) -> str | None:
    """The last error sentence among lines that a command printed; None where it printed none."""
    errors = [match[1] for line in lines if (match := _ERROR.match(line))]
    return errors[-1] if errors else None


def _newest_part(lines: list[str]) -> list[str]:
    """The lines behind the last that begins a sitting; all of them where none does."""
    begins = [at for at, line in enumerate(lines) if line.startswith(_BEGINS)]
    return lines[begins[-1] + 1 :] if begins else lines


def tail_text(path: Path) -> str:
    """The last part of a file as text; OSError where it is none that can be read."""
    return tail(path).decode("utf-8", errors="replace")


def tail(path: Path) -> bytes:
    """The last `_TAIL_BYTES` of a file; OSError where it is none that can be read."""
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
        return file.read(_TAIL_BYTES)
