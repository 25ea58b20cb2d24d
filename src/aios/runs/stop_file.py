"""The file whose appearance asks a run to stop: any that is there does, and what it holds only chooses how."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from aios.errors import UserError
from aios.files import read_at_most


class Request(str, Enum):
    """What the file asks for, by what it holds."""

    STOP = "STOP"
    """Save and stop at once; what is meant as well by a file that holds nothing, or anything else."""
    FINISH = "FINISH"
    """A short anneal and a regular end."""

    @property
    def content(self) -> bytes:
        """What to write into the file to ask for it."""
        return self.value.encode()


_REQUESTS = (b"", *(request.content for request in Request))
_MOST_BYTES = 64
_BEING_WRITTEN = 0.1
"""Seconds after which an empty file is not being written any more."""


@dataclass(frozen=True)
class StopFile:
    """Where a run looks for a request to stop, and what may be taken away from there once it was heeded."""

    path: Path
    """The place."""
    ours: bool
    """Whether the name was made up here (`STOP` in the brain's folder). What lies at a place that somebody else chose
    is removed only if it is nothing but a request, so that no document is ever lost."""

    @property
    def is_there(self) -> bool:
        """Whether anything is: a file, a folder, a link to nowhere."""
        return os.path.lexists(self.path)

    def asked(self) -> Request | None:
        """What is asked for; None while nothing is there. Never fails, whatever is there."""
        if not self.is_there:
            return None
        if self._content() == b"":
            time.sleep(_BEING_WRITTEN)  # `echo FINISH > STOP` makes an empty file first
        return Request.FINISH if self._content() == Request.FINISH.content else Request.STOP

    def check(self) -> None:
        """Refuse a place where no request can appear, or where something else lies.

        Raises:
            UserError: naming it.
        """
        try:
            self.path.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise UserError(
                f"--stop-file {self.path} is a file that can never appear ({error.strerror}); choose another."
            ) from error
        if not self.ours and self._content() not in _REQUESTS:
            raise UserError(
                f"--stop-file {self.path} is there already and is no request to stop, which would be empty or hold "
                "STOP or FINISH; choose a file that is not there yet."
            )

    def take_away(self) -> str | None:
        """Remove the request, so that the next run does not stop on it; a sentence where it has to stay."""
        obstacle = self._remove() if self.is_there else None
        if obstacle is None:
            return None
        return f"{self.path} is still there ({obstacle}), so the next run will stop on it; remove it before."

    def _remove(self) -> str | None:
        """Remove what is there; what is in the way of that, None when nothing is."""
        if not self.ours and self._content() not in _REQUESTS:
            return "it is no request to stop, so it was not removed"
        try:
            if self.path.is_dir() and not self.path.is_symlink():
                self.path.rmdir()
            else:
                self.path.unlink(missing_ok=True)
        except OSError as error:
            return f"it cannot be removed: {error.strerror}"
        return None

    def _content(self) -> bytes | None:
        """What the file says; None where it is no file, cannot be read, or is too long for a request."""
        try:
            start = read_at_most(self.path, _MOST_BYTES)
        except OSError:
            return None
        return start.strip() if len(start) <= _MOST_BYTES else None
