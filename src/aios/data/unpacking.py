"""The bytes of a dataset's file, unpacked piece by piece where its name ends in .gz or .zst."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from aios.errors import UserError, one_line
from aios.extras import load

PACKED_SUFFIXES = (".gz", ".zst")

_CHUNK_BYTES = 2048
"""Packed bytes taken at a time: zstd makes at most some 32 000 of one, which is 64 MB."""
_NAMES = {".gz": "gzip", ".zst": "zstd"}


class Unpacked(NamedTuple):
    """An open file."""

    stream: BinaryIO
    """What it says."""
    file: BinaryIO
    """What lies on the disk: `file.tell()` is how much of that was read."""


def is_packed(path: Path) -> bool:
    """Whether the file is read through a decompressor."""
    return path.suffix.lower() in PACKED_SUFFIXES


def text_suffix(path: Path) -> str:
    """The suffix that says what is in a file, in small letters: of `a.jsonl.gz` it is `.jsonl`."""
    return (Path(path.stem) if is_packed(path) else path).suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[Unpacked]:
    """The file, open for reading.

    Raises:
        UserError: also from what reads inside, where packed bytes are damaged or end too early.
    """
    packing = _NAMES.get(path.suffix.lower())
    damage: tuple[type[BaseException], ...] = (EOFError, zlib.error, gzip.BadGzipFile)
    zstandard: Any = load("zstandard") if packing == "zstd" else None
    if zstandard is not None:
        damage = (EOFError, zstandard.ZstdError)
    with path.open("rb") as file:
        try:
            with _unpack(file, zstandard, packing) as stream:
                yield Unpacked(stream, file)
        except damage as error:
            reason = one_line(error).rstrip(".")
            raise UserError(
                f"The dataset file {path} cannot be unpacked by {packing} ({reason}); fetch or pack it again."
            ) from error


@contextmanager
def _unpack(file: BinaryIO, zstandard: Any, packing: str | None) -> Iterator[BinaryIO]:
    if packing is None:
        yield file
    elif packing == "gzip":
        with gzip.open(file, "rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        with io.BufferedReader(_ZstdStream(file, zstandard.ZstdDecompressor())) as stream:
            yield cast(BinaryIO, stream)


class _ZstdStream(io.RawIOBase):
    """Frames of zstd one after another. The package's own reader takes a file that was cut short for a whole one."""

    def __init__(self, file: BinaryIO, decompressor: Any) -> None:
        self._file, self._decompressor = file, decompressor
        self._frame = decompressor.decompressobj()
        self._begun = False
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As `io.RawIOBase.readinto`; EOFError where the file ends within a frame."""
        while not self._ready:
            block = self._file.read(_CHUNK_BYTES)
            if not block:
                if self._begun and not self._frame.eof:
                    raise EOFError("it ends before its end-of-frame marker")
                return 0
            self._ready = memoryview(b"".join(self._frames(block)))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def _frames(self, block: bytes) -> Iterator[bytes]:
        while block:
            if self._frame.eof:
                self._frame = self._decompressor.decompressobj()
            self._begun = True
            yield self._frame.decompress(block)
            block = self._frame.unused_data
