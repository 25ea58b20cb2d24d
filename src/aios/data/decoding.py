"""The bytes of a text file as text, in the encoding that was asked for; one that is in another is told by its look."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NoReturn

from aios.errors import UserError

UTF_8 = "utf-8"
"""What text is in unless another encoding is asked for; rows always are."""

_CONTROLS = bytes({*range(0x20), 0x7F} - {*b"\t\n\v\f\r\x1b"})
_WINDOWS = bytes(range(0x80, 0xA0))
"""Letters and quotation marks in cp1252, control characters in latin-1."""
_MOST_CONTROLS = 0.002
_MOST_FOREIGN = 0.3
"""Part of a Western text that is not ASCII, at most: others are in an encoding that their look does not tell."""
_HALF_EMPTY = 0.3
"""Part of the bytes at odd, or at even, places that are 0 in UTF-16 text, at least."""


def known_encoding(name: str) -> str | None:
    """The usual name of a text encoding that Python can read; None where it knows none of this name."""
    try:
        "a".encode(name)
        codecs.getincrementaldecoder(name)
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        return None


def likely_encoding(block: bytes) -> str | None:
    """The encoding that bytes which are no UTF-8 look like; empty where they are text in some other; None: no text."""
    if block.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):  # the first begins as that of UTF-16 does
        return "utf-32"
    if block.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 0 in block:
        even, odd = (block[at::2].count(0) / max(1, len(block[at::2])) for at in (0, 1))
        letters = block[0::2] if odd > even else block[1::2]
        if min(even, odd) > 0.01 or max(even, odd) < _HALF_EMPTY or letters.translate(None, _CONTROLS) != letters:
            return None
        return "utf-16-le" if odd > even else "utf-16-be"
    if len(block.translate(None, _CONTROLS)) < (1 - _MOST_CONTROLS) * len(block):
        return None
    foreign = sum(byte >= 0x80 for byte in block)
    if foreign > _MOST_FOREIGN * len(block):
        return ""
    if len(block.translate(None, _WINDOWS)) == len(block):
        return "latin-1"
    try:
        block.decode("cp1252")
    except UnicodeDecodeError:
        return ""
    return "cp1252"


class TextDecoder:
    """Incremental strict decoder that knows its offset in the file and refuses what is not text in its encoding."""

    def __init__(self, path: Path, encoding: str = UTF_8) -> None:
        self._path, self._encoding = path, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._wide = "\0".encode(encoding) != b"\0"  # then a byte of 0 may be part of a letter
        self._offset = 0
        self._beyond_ascii = False

    def decode(self, block: bytes, final: bool) -> str:
        """Decode the next block; UserError at a NUL or at what is not of the encoding. A leading BOM is dropped."""
        nul = -1 if self._wide else block.find(b"\0")
        if nul >= 0:
            self._refuse(block, nul)
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            # error.object is the undecoded rest of earlier blocks plus this block
            self._refuse(block, len(block) - len(error.object) + error.start)
        if self._wide and "\0" in text:
            self._refuse(block, 0)
        at_start = self._offset == 0
        self._offset += len(block)
        self._beyond_ascii = self._beyond_ascii or not text.isascii()
        return text.removeprefix("\ufeff") if at_start else text

    def _refuse(self, block: bytes, position: int) -> NoReturn:
        # An empty block: the end of the file cuts a letter off, which tells nothing of the encoding.
        place, likely = f"byte {self._offset + position}", likely_encoding(block) if block else ""
        if self._encoding != UTF_8:
            what = f"is not text in {self._encoding} ({place}); check --encoding"
        elif likely is None:
            what = f"is binary, not UTF-8 text ({place}); convert it to a UTF-8 text file or to .jsonl"
        elif self._beyond_ascii or not likely or not block[: max(0, position)].decode(errors="ignore").isascii():
            what = f"is not UTF-8 text ({place}); convert it, or name its encoding with --encoding"
        else:
            what = f"is not UTF-8 text ({place}), but looks like {likely}; give --encoding {likely}, or convert it"
        raise UserError(f"The dataset file {self._path} {what}.")
