"""Streams documents from a text file, a .jsonl file or a folder of them, in bounded memory.

A document is one text file or one line of a .jsonl file. It leaves here as a series of short pieces, cut
where a tokenizer cuts too, so that encoding piece by piece gives the tokens of the whole.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NoReturn

from aios.errors import UserError

FOLDER_SUFFIXES = frozenset({".txt", ".text", ".md", ".jsonl"})
"""Read from a folder; a file named directly may end in anything, and is text unless it ends in .jsonl."""

PIECE_CHARS = 32 * 1024
"""Longest piece, in characters."""

_BLOCK_BYTES = 256 * 1024
_MAX_JSONL_LINE = 32 * 1024 * 1024
_SNIFF_BYTES = 64 * 1024
_SNIFF_FILES = 16

# Both cuts coincide with word boundaries of the usual byte-level pre-tokenizers: these split off a single
# newline, keep a space with the word that follows, and some (GPT-4, Llama 3) keep newlines with the
# punctuation before them.
_AFTER_NEWLINE = re.compile(r"(?<=\S)\r?\n(?=\S)")
_BEFORE_SPACE = re.compile(r"(?<=\S) (?=\S)")


@dataclass(frozen=True)
class SourceFile:
    """One input file as it was when the source was opened."""

    path: Path
    """Absolute path."""
    size: int
    """Bytes, more than zero."""
    mtime_ns: int
    """Time of the last change, in nanoseconds."""


@dataclass(frozen=True)
class TextSource:
    """The files behind one `--dataset-file`, in reading order."""

    name: str
    """The path as the user gave it."""
    files: tuple[SourceFile, ...]
    """Never empty."""

    @property
    def total_bytes(self) -> int:
        """Sum of the file sizes."""
        return sum(file.size for file in self.files)


class TextPiece(NamedTuple):
    """A part of one document; the pieces of a document follow each other and join to its text."""

    text: str
    ends_document: bool
    bytes_done: int
    """Bytes of the whole source read so far."""


def check_dataset(path: str | Path) -> TextSource:
    """Open a dataset: it exists, is readable, not empty, and begins like text. Imports nothing heavy.

    Raises UserError naming the path and the remedy. Damage further in is found when it is read.
    """
    if not str(path).strip():
        raise UserError("The dataset path (--dataset-file) is empty; name a file or folder, or leave it out.")
    root = Path(os.path.expanduser(path)).absolute()
    try:
        source = TextSource(str(path), tuple(_usable_files(root, str(path))))
        for file in source.files[:_SNIFF_FILES]:
            _sniff(file.path)
    except FileNotFoundError as error:
        raise UserError(f"The dataset {path} does not exist; check the path.") from error
    except OSError as error:
        raise UserError(f"The dataset {path} cannot be read ({error}); check its permissions.") from error
    return source


def iter_pieces(source: TextSource, piece_chars: int = PIECE_CHARS) -> Iterator[TextPiece]:
    """Yield all documents of the source as pieces of at most `piece_chars` characters, in order.

    Raises UserError for binary content (file and offset), a bad .jsonl line (file and line) and unreadable
    files.
    """
    done = 0
    for file in source.files:
        try:
            if _is_jsonl(file.path):
                yield from _jsonl_pieces(file.path, done, piece_chars)
            else:
                yield from _text_pieces(file.path, done, piece_chars)
        except OSError as error:
            raise UserError(f"The dataset file {file.path} cannot be read ({error}); check it.") from error
        done += file.size


def _is_jsonl(path: Path) -> bool:
    return path.suffix.lower() == ".jsonl"


def _usable_files(root: Path, name: str) -> Iterator[SourceFile]:
    mode = root.stat().st_mode
    if stat.S_ISREG(mode):
        file = _stat_file(root)
        if file.size == 0:
            raise UserError(f"The dataset {name} is empty (0 bytes); give a file with text.")
        yield file
    elif stat.S_ISDIR(mode):
        files = [file for file in map(_stat_file, _walk(root)) if file.size > 0]
        if not files:
            kinds = ", ".join(sorted(FOLDER_SUFFIXES))
            raise UserError(f"The dataset folder {name} holds no non-empty text file ({kinds}); add one.")
        yield from files
    else:
        raise UserError(f"The dataset {name} is neither a file nor a folder; save the text as a file first.")


def _stat_file(path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(path, status.st_size, status.st_mtime_ns)


def _walk(root: Path) -> list[Path]:
    """All files with a text suffix below `root`, sorted by path; OSError at an unreadable folder."""

    def fail(error: OSError) -> NoReturn:
        raise error

    found = (Path(folder, name) for folder, _, names in os.walk(root, onerror=fail) for name in names)
    return sorted(path for path in found if path.suffix.lower() in FOLDER_SUFFIXES and path.is_file())


def _sniff(path: Path) -> None:
    with path.open("rb") as stream:
        block = stream.read(_SNIFF_BYTES)
    _Utf8Stream(path).decode(block, final=False)


class _Utf8Stream:
    """Incremental strict UTF-8 decoder that knows its offset in the file and refuses what is not text."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._decoder = codecs.getincrementaldecoder("utf-8")("strict")
        self._offset = 0

    def decode(self, block: bytes, final: bool) -> str:
        """Decode the next block; UserError at a NUL byte or invalid UTF-8. A leading BOM is dropped."""
        nul = block.find(b"\0")
        if nul >= 0:
            self._refuse(self._offset + nul)
        try:
            text = self._decoder.decode(block, final)
        except UnicodeDecodeError as error:
            # error.object is the undecoded rest of earlier blocks plus this block
            self._refuse(self._offset + len(block) - len(error.object) + error.start)
        at_start = self._offset == 0
        self._offset += len(block)
        return text.removeprefix("\ufeff") if at_start else text

    def _refuse(self, offset: int) -> NoReturn:
        raise UserError(
            f"The dataset file {self._path} is binary, not UTF-8 text (byte {offset}); "
            "convert it to a UTF-8 text file or to .jsonl."
        )


def _text_pieces(path: Path, done: int, piece_chars: int) -> Iterator[TextPiece]:
    """Pieces of one plain text file. Memory: one block and one piece, however long the file or its lines."""
    decoder = _Utf8Stream(path)
    rest = ""
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            done += len(block)
            *pieces, rest = _cut(rest + decoder.decode(block, final=False), piece_chars)
            yield from (TextPiece(piece, False, done) for piece in pieces)
    *pieces, rest = _cut(rest + decoder.decode(b"", final=True), piece_chars)
    yield from (TextPiece(piece, False, done) for piece in pieces)
    yield TextPiece(rest, True, done)


def _jsonl_pieces(path: Path, done: int, piece_chars: int) -> Iterator[TextPiece]:
    """Pieces of one .jsonl file; blank lines and empty texts are skipped."""
    with path.open("rb") as stream:
        lines = iter(lambda: stream.readline(_MAX_JSONL_LINE), b"")
        for number, line in enumerate(lines, start=1):
            done += len(line)
            *pieces, last = _cut(_parse_line(line, path, number), piece_chars)
            yield from (TextPiece(piece, False, done) for piece in pieces)
            if last:
                yield TextPiece(last, True, done)


def _parse_line(line: bytes, path: Path, number: int) -> str:
    """The `text` of one line, "" for a blank line. Raises UserError with file and line number."""
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    if not line.strip():
        return ""
    if len(line) >= _MAX_JSONL_LINE:
        _bad_line(path, number, f"is longer than {_MAX_JSONL_LINE} bytes", "split the document")
    try:
        record = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        _bad_line(path, number, f"is not UTF-8 (byte {error.start} of the line)", "convert the file")
    except (ValueError, RecursionError) as error:
        _bad_line(path, number, f"is not valid JSON ({error})", "mend or remove it")
    text = record.get("text") if isinstance(record, dict) else None
    if not isinstance(text, str):
        _bad_line(path, number, 'has no string under the key "text"', 'write {"text": "..."} on each line')
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        _bad_line(path, number, f"holds half of a surrogate pair ({error.reason})", "mend or remove it")
    return text


def _bad_line(path: Path, number: int, problem: str, remedy: str) -> NoReturn:
    raise UserError(f"Line {number} of the dataset file {path} {problem}; {remedy}.")


def _cut(text: str, piece_chars: int) -> list[str]:
    """Cut into one or more pieces of at most `piece_chars` characters that join to `text`."""
    pieces = []
    start = 0
    while len(text) - start > piece_chars:
        end = _cut_position(text, start, start + piece_chars)
        pieces.append(text[start:end])
        start = end
    pieces.append(text[start:])
    return pieces


def _cut_position(text: str, start: int, limit: int) -> int:
    """Last good cut in (start, limit]: after a lone newline, else before a lone space, else `limit` itself.

    Looks back over the last quarter of the piece first, so that finding a cut costs little.
    """
    near = limit - (limit - start) // 4
    for begin in (near, start + 1):
        if newlines := [match.end() for match in _AFTER_NEWLINE.finditer(text, begin, limit + 1)]:
            return newlines[-1]
    for begin in (near, start + 1):
        if spaces := [match.start() for match in _BEFORE_SPACE.finditer(text, begin, limit + 1)]:
            return spaces[-1]
    return limit
