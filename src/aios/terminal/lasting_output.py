"""A standard output that may go while a training lasts: its reader ends, or the disk under it is full."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TextIO


class LastingOutput(io.TextIOBase):
    """Writes into `stream` until that takes no more, and from then on nowhere; never raises OSError.

    A pipe without a reader is given up in silence: nobody reads any more. Anything else is one sentence on standard
    error.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write `text`; returns its length in characters."""
        try:
            self._stream.write(text)
        except OSError as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Have written what was taken."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream.isatty()

    def fileno(self) -> int:
        """The descriptor behind it."""
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a plain attribute there
        """In which letters become bytes."""
        return self._stream.encoding

    def _give_up(self, error: OSError) -> None:
        # Below the stream, whose buffer still holds what could not be written, and must be empty when Python ends.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if not isinstance(error, BrokenPipeError):
            with suppress(OSError):  # it may lie on the same disk
                sys.stderr.write(
                    f"Standard output cannot be written any more ({error.strerror}); the training goes on, and its log "
                    "has all of it.\n"
                )
