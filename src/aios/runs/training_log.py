"""The JSONL training log: one JSON object a line, flushed per line, appended to and never deleted."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from aios.errors import UserError
from aios.files import fsync

_BEGINNINGS = (b'{"event": "run_start", "ts": ', b'{"event": "run_resumed", "ts": ')
"""How the first record of a log begins."""
_FIRST_LINE_BYTES = 1 << 20


def write_jsonl(stream: TextIO, record: Mapping[str, Any]) -> None:
    """Write `record` as one line of valid JSON and flush it.

    A non-finite number, which JSON cannot say, becomes null and the record gains `"non_finite": true`.
    """
    plain = _null_non_finite(record)
    if plain != record:
        plain["non_finite"] = True
    stream.write(json.dumps(plain, allow_nan=False) + "\n")
    stream.flush()


def _null_non_finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _null_non_finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_non_finite(v) for v in value]
    return value


def check_log(path: Path) -> None:
    """Refuse a file that a log must not be appended to: it would be cut where a crash seems to have torn it.

    A log of ours is a regular file, perhaps behind a link, whose first line is a record: an object with an `event` and
    a number `ts` or `step`. An empty file is one, too, and so is a single line that was torn, if it begins like the
    first record of a run.

    Raises:
        UserError: naming the file and what is wrong with it.
    """
    try:
        why = _why_not_a_log(path)
    except OSError as error:
        why = f"cannot be written ({error.strerror})"
    if why is not None:
        raise UserError(f"The log {path} {why}; choose another --log-file, or move what is there away.")


def _why_not_a_log(path: Path) -> str | None:
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nowhere" if path.is_symlink() else None
    if not stat.S_ISREG(mode):
        return "is a folder" if stat.S_ISDIR(mode) else "is no regular file"
    with path.open("rb+") as file:
        first = file.readline(_FIRST_LINE_BYTES)
    return None if not first or _begins_a_log(first) else "is no training log"


def _begins_a_log(line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return any(line.startswith(known) or known.startswith(line) for known in _BEGINNINGS)
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(record, dict) or not isinstance(record.get("event"), str):
        return False
    return any(isinstance(record.get(key), (int, float)) for key in ("ts", "step"))


def repair_torn_line(path: Path) -> int:
    """Cut a last line that a crash left half written; returns the number of bytes cut (0 when whole)."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        size = file.seek(0, 2)
        whole = _end_of_last_line(file, size)
        file.truncate(whole)
    return size - whole


def _end_of_last_line(file: Any, size: int, chunk: int = 65536) -> int:
    """Offset just past the last newline, searching backwards in bounded memory."""
    end = size
    while end > 0:
        start = max(0, end - chunk)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


class _WholeWrites(io.FileIO):
    """A file without a buffer whose writes are never short: the rest follows at once."""

    def write(self, data: Any) -> int:
        """Write all of `data`; raises OSError where the system takes no more."""
        rest = memoryview(data)
        while rest:
            rest = rest[super().write(rest) :]
        return len(data)


def _appending(path: Path) -> TextIO:
    """The file, open for appending records; it can be read, too, should its name be taken away."""
    return io.TextIOWrapper(_WholeWrites(path, "ab+"), encoding="utf-8", write_through=True)


def _identity(place: Path | int) -> tuple[int, int] | None:
    """What tells the file at a path, or behind a descriptor, from all others; None where there is none."""
    try:
        status = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


class TrainingLog:
    """The open log of one worker; every record gets `event`, `ts` (unix seconds) and `step`.

    `path` is None for a worker that keeps no log because another one does. Several processes may append to one log:
    each record is a single unbuffered write in append mode, so their lines never mix. The first of them to open it
    checks and repairs it; for the others `repair` is False, or they would cut the line that another is just writing.
    Where another file takes the place of the open one, records go there once `follow`, called first, has let them; one
    that is taken away comes back with `sync`.

    Raises:
        UserError: on construction, for a file that is no log (see `check_log`).
    """

    def __init__(self, path: Path | None, repair: bool = True, follow: Callable[[], object] | None = None) -> None:
        self._stream: TextIO | None = None
        self._follow = follow
        if path is not None:
            self._path = path
            path.parent.mkdir(parents=True, exist_ok=True)
            if repair:
                check_log(path)
                repair_torn_line(path)
            self._open()

    def write(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Append `record`, stamped with the time unless it already is; returns what was written."""
        stamped = {"event": record["event"], "ts": time.time(), **record}
        if self._stream is not None:
            if _identity(self._path) not in (None, self._opened):
                if self._follow is not None:
                    self._follow()
                self._stream.close()
                self._open()
            write_jsonl(self._stream, stamped)
        return stamped

    def sync(self) -> bool:
        """Return when all that was appended is on the disk, also what other processes appended.

        A log that was taken away, alone or with its folder, is written again first, whole; returns whether it was.
        """
        if self._stream is None:
            return False
        taken_away = _identity(self._path) is None
        if taken_away:
            self._bring_back(self._stream)
        os.fsync(self._stream.fileno())
        fsync(self._path.parent)  # a new log's name
        return taken_away

    def _bring_back(self, stream: TextIO) -> None:
        """What the open file holds, under its old name; processes that share it follow with their next record."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.dup(stream.fileno()), "rb") as old, self._path.open("ab") as new:
            old.seek(0)
            shutil.copyfileobj(old, new)
            new.flush()
            shutil.copyfileobj(old, new)  # what others appended meanwhile
        stream.close()
        self._open()

    def _open(self) -> None:
        self._stream = _appending(self._path)
        self._opened = _identity(self._stream.fileno())  # asked once: the step loop writes records

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stream is not None:
            self._stream.close()
