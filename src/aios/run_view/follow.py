"""Follows a growing JSONL log by byte offset: every line is parsed once, whatever happens to the file meanwhile."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from aios.errors import UserError

POLL_BYTES = 4 << 20
"""Most bytes that one poll reads, so that whoever polls is not held up."""
MAX_LINE_BYTES = 64 << 20
"""A longer line is taken for no JSON and is skipped."""
_TAIL_BYTES = 256
TRAIN_LINE = b'{"event": "train", '
"""How the line of a training step begins, as `runs.training_log` writes it."""


class LogFollower:
    """Reads the log at `path` from where the last poll stopped; the file need not exist yet.

    The offset stands behind the last whole line. A torn last line is left for the next poll: the trainer may finish
    it, or cut it off and go on behind it. That the file is still the one read before is known by its inode, by its
    size, and by the last bytes before the offset, which a file written anew under the same inode does not have.
    Lines that begin with `skipped` are counted, but neither parsed nor returned.
    """

    def __init__(self, path: Path, skipped: bytes | None = None) -> None:
        self.path = Path(path)
        self._skipped = skipped
        self.missing = False
        """Whether the latest poll found no file."""
        self.at_end = False
        """Whether the latest poll saw the file's end (a torn line behind it may be waiting)."""
        self.restarted = False
        """Whether the latest poll found another file than before and began again: forget the older records."""
        self.bad_lines = 0
        """Lines that are no JSON objects."""
        self.good_lines = 0
        """Lines that are."""
        self._offset = 0
        self._tail = b""  # the bytes just before the offset
        self._identity: tuple[int, int] | None = None
        self._inside_long_line = False
        self._seen_unfinished: tuple[int, int] | None = None  # size and time of a file that ends in a torn line

    @property
    def is_log(self) -> bool:
        """False when there are lines and not one of them is a JSON object."""
        return self.good_lines > 0 or self.bad_lines == 0

    @property
    def no_log(self) -> str | None:
        """That the file is no training log, in one sentence; None while it may be one."""
        told = f"{self.path} is no training log: none of its lines is a JSON object; choose another file."
        return None if self.is_log else told

    def rest(self) -> Iterator[dict[str, Any]]:
        """The records of all that has not been read yet, to the end of the file as it is now.

        Raises:
            UserError: when the file is there but cannot be read.
        """
        yield from self.poll()
        while not self.at_end:
            yield from self.poll()

    def poll(self, max_bytes: int = POLL_BYTES) -> list[dict[str, Any]]:
        """The records of the lines that are new, at most `max_bytes` of them (at least one line, however long).

        Raises:
            UserError: when the file is there but cannot be read.
        """
        self.restarted = False
        try:
            with self.path.open("rb") as file:
                return self._read_new(file, max_bytes)
        except FileNotFoundError:
            self.missing = self.at_end = True
            return []
        except OSError as error:
            raise UserError(
                f"The log {self.path} cannot be read ({error.strerror}); check that it is a file and who may read it."
            ) from error

    def _read_new(self, file: BinaryIO, max_bytes: int) -> list[dict[str, Any]]:
        status = os.fstat(file.fileno())
        identity = (status.st_dev, status.st_ino)
        if self._identity is not None and not self._is_same_file(file, identity, status.st_size):
            self._begin_again()
        self.missing, self._identity = False, identity
        version = (status.st_size, status.st_mtime_ns)
        if version == self._seen_unfinished:
            self.at_end = True
            return []
        file.seek(self._offset)
        chunk = _read_to_a_line_end(file, max_bytes)
        self.at_end = self._offset + len(chunk) >= status.st_size
        self._seen_unfinished = version if self.at_end and chunk and b"\n" not in chunk else None
        return self._take(chunk)

    def _is_same_file(self, file: BinaryIO, identity: tuple[int, int], size: int) -> bool:
        if identity != self._identity or size < self._offset:
            return False
        file.seek(self._offset - len(self._tail))
        return file.read(len(self._tail)) == self._tail

    def _begin_again(self) -> None:
        self.restarted = True
        self.bad_lines = self.good_lines = self._offset = 0
        self._tail, self._inside_long_line, self._seen_unfinished = b"", False, None

    def _take(self, chunk: bytes) -> list[dict[str, Any]]:
        """Parse the whole lines of `chunk` and move the offset behind them."""
        end = chunk.rfind(b"\n") + 1
        if end == 0 and len(chunk) >= MAX_LINE_BYTES:
            end, self._inside_long_line = len(chunk), True
            lines = []
        else:
            lines = chunk[:end].split(b"\n")[:-1]
            if lines and self._inside_long_line:
                self._inside_long_line, lines = False, lines[1:]
                self.bad_lines += 1
        self._offset += end
        self._tail = (self._tail + chunk[max(0, end - _TAIL_BYTES) : end])[-_TAIL_BYTES:]
        return self._parse(lines)

    def _parse(self, lines: list[bytes]) -> list[dict[str, Any]]:
        records = []
        if self._skipped is not None:
            told = [line for line in lines if not line.startswith(self._skipped)]
            self.good_lines += len(lines) - len(told)
            lines = told
        for line in lines:
            record = record_of(line)
            if record is not None:
                records.append(record)
            else:
                self.bad_lines += bool(line.strip())
        self.good_lines += len(records)
        return records


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record that a line of a log holds; None for one that holds none."""
    try:
        record = json.loads(line.decode())
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or nested beyond reason
        return None
    return record if isinstance(record, dict) else None


def _read_to_a_line_end(file: BinaryIO, max_bytes: int) -> bytes:
    """At most `max_bytes`, or as many pieces of so many as it takes to see a line end; less than that at the end."""
    pieces, size = [file.read(max_bytes)], 0
    while pieces[-1] and b"\n" not in pieces[-1] and (size := size + len(pieces[-1])) < MAX_LINE_BYTES:
        pieces.append(file.read(max_bytes))
    return b"".join(pieces)
