"""Streams documents from files of text, .jsonl or tables, or a folder of them, in bounded memory.

A document is one text file, or one row of a .jsonl file or a table (see `rows`). It leaves here as a series of short
pieces, cut where a tokenizer cuts too, so that encoding piece by piece gives the tokens of the whole.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

from aios.data.decoding import UTF_8, TextDecoder
from aios.data.rows import MAX_ROW, Kind, Part, Place, row_kind, row_parts
from aios.data.tables import SPLITS_FILE, STATE_FILE, is_table, saved_files, table_kind, table_rows
from aios.data.tokenizer import bundled_corpus_path
from aios.data.unpacking import is_packed, opened, text_suffix
from aios.errors import UserError
from aios.places import expanded

FOLDER_SUFFIXES = frozenset({".txt", ".text", ".md", ".jsonl", ".parquet"})
"""Read from a folder, the first four packed too. A file named directly may end in anything, and is text by default."""

PIECE_CHARS = 32 * 1024
"""Longest piece, in characters."""

_BLOCK_BYTES = 256 * 1024
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
    kind: Kind
    """What every row is."""
    encoding: str = UTF_8
    """Of plain text files, as Python names it; rows are UTF-8."""

    @property
    def total_bytes(self) -> int:
        """Sum of the file sizes."""
        return sum(file.size for file in self.files)


class TextPiece(NamedTuple):
    """A part of one document; the pieces of a document follow each other and join to its text."""

    text: str
    """Decoded."""
    ends_document: bool
    """Whether the end-of-text token follows: at the end of a document, and of an assistant's turn."""
    bytes_done: int
    """Bytes of the whole source read so far."""
    learned: bool = True
    """Whether the loss is taken on it."""


def check_dataset(path: str | Path | None, encoding: str = UTF_8) -> TextSource:
    """Open a dataset: it exists, is readable, not empty, and begins like text or a row of some kind.

    None is the bundled text. `encoding` is that of the plain text files. Imports nothing heavy, but pyarrow for tables.

    Raises UserError naming the path and the remedy. Damage further in is found when it is read.
    """
    if path is None:
        return check_dataset(bundled_corpus_path())
    if not str(path).strip():
        raise UserError("The dataset path (--dataset-file) is empty; name a file or folder, or leave it out.")
    root = expanded(path).absolute()
    try:
        files = tuple(_usable_files(root, str(path)))
        for file in files[:_SNIFF_FILES]:
            _sniff(file.path, encoding)
        source = TextSource(str(path), files, _first_kind(files[0].path), encoding)
    except FileNotFoundError as error:
        raise UserError(f"The dataset {path} does not exist; check the path.") from error
    except OSError as error:
        raise UserError(f"The dataset {path} cannot be read ({error.strerror}); {_remedy(error)}.") from error
    return source


def _remedy(error: OSError) -> str:
    return "shorten the name" if error.errno == errno.ENAMETOOLONG else "check its permissions"


def iter_pieces(source: TextSource, piece_chars: int = PIECE_CHARS) -> Iterator[TextPiece]:
    """Yield all documents of the source as pieces of at most `piece_chars` characters, in order.

    Raises UserError for binary content (file and offset), a bad .jsonl line (file and line) and unreadable
    files.
    """
    done = 0
    for file in source.files:
        try:
            yield from _pieces(file, source, done, piece_chars)
        except OSError as error:
            raise UserError(f"The dataset file {file.path} cannot be read ({error}); check it.") from error
        done += file.size


def _pieces(file: SourceFile, source: TextSource, done: int, piece_chars: int) -> Iterator[TextPiece]:
    kind = source.kind
    if is_table(file.path):
        rows = _table_rows(file, kind, done)
    elif _is_jsonl(file.path):
        rows = _jsonl_rows(file.path, kind, done)
    elif kind == "text":
        return _text_pieces(file.path, source.encoding, done, piece_chars)
    else:
        raise UserError(
            f"The dataset file {file.path} is plain text, but the dataset began with rows of instructions; "
            "keep each in its own dataset."
        )
    return _row_pieces(rows, piece_chars)


def _is_jsonl(path: Path) -> bool:
    return text_suffix(path) == ".jsonl"


def _first_kind(path: Path) -> Kind:
    """The kind of the first row, which all others must have; plain text where there is none."""
    if is_table(path):
        return table_kind(path)
    if _is_jsonl(path):
        with opened(path) as (stream, _):
            for number, line in _filled_lines(stream):
                place = Place(path, "Line", number)
                return row_kind(_parse_line(line, place), place)
    return "text"


def _usable_files(root: Path, name: str) -> Iterator[SourceFile]:
    mode = root.stat().st_mode
    if stat.S_ISREG(mode):
        file = _stat_file(root)
        if file.size == 0:
            raise UserError(f"The dataset {name} is empty (0 bytes); give a file with text.")
        yield file
    elif stat.S_ISDIR(mode):
        files = [file for file in map(_stat_file, _files_in(root, name)) if file.size > 0]
        if not files:
            kinds = ", ".join(sorted(FOLDER_SUFFIXES))
            raise UserError(f"The dataset folder {name} holds no non-empty text file ({kinds}); add one.")
        yield from files
    else:
        raise UserError(f"The dataset {name} is neither a file nor a folder; save the text as a file first.")


def _stat_file(path: Path) -> SourceFile:
    status = path.stat()
    return SourceFile(path, status.st_size, status.st_mtime_ns)


def _files_in(root: Path, name: str) -> list[Path]:
    if (root / SPLITS_FILE).is_file():
        raise UserError(
            f"The dataset folder {name} holds several splits; name one of its folders, the one to evaluate on with "
            "--eval-file."
        )
    return saved_files(root) if (root / STATE_FILE).is_file() else _walk(root)


def _walk(root: Path) -> list[Path]:
    """All files with a text suffix below `root`, sorted by path; OSError at an unreadable folder."""

    def fail(error: OSError) -> NoReturn:
        raise error

    found = (Path(folder, name) for folder, _, names in os.walk(root, onerror=fail) for name in names)
    return sorted(path for path in found if _is_dataset_file(path) and path.is_file())


def _is_dataset_file(path: Path) -> bool:
    return text_suffix(path) in FOLDER_SUFFIXES and not (is_packed(path) and is_table(Path(path.stem)))


def _sniff(path: Path, encoding: str) -> None:
    if is_table(path):
        return
    with opened(path) as (stream, _):
        block = stream.read(_SNIFF_BYTES)
    TextDecoder(path, UTF_8 if _is_jsonl(path) else encoding).decode(block, final=False)


def _text_pieces(path: Path, encoding: str, done: int, piece_chars: int) -> Iterator[TextPiece]:
    """Pieces of one plain text file. Memory: one block and one piece, however long the file or its lines."""
    decoder = TextDecoder(path, encoding)
    rest = ""
    with opened(path) as (stream, file):
        while block := stream.read(_BLOCK_BYTES):
            *pieces, rest = _cut(rest + decoder.decode(block, final=False), piece_chars)
            yield from (TextPiece(piece, False, done + file.tell()) for piece in pieces)
        done += file.tell()
    *pieces, rest = _cut(rest + decoder.decode(b"", final=True), piece_chars)
    yield from (TextPiece(piece, False, done) for piece in pieces)
    yield TextPiece(rest, True, done)


class _Row(NamedTuple):
    parts: list[Part]
    """In order."""
    bytes_done: int
    """Bytes of the whole source read up to its end."""


def _row_pieces(rows: Iterator[_Row], piece_chars: int) -> Iterator[TextPiece]:
    for parts, done in rows:
        for part in parts:
            *pieces, last = _cut(part.text, piece_chars)
            yield from (TextPiece(piece, False, done, part.learned) for piece in pieces)
            yield TextPiece(last, part.ends, done, part.learned)


def _table_rows(file: SourceFile, kind: Kind, done: int) -> Iterator[_Row]:
    for number, (row, share) in enumerate(table_rows(file.path), start=1):
        yield _Row(row_parts(row, kind, Place(file.path, "Row", number)), done + int(file.size * share))


def _jsonl_rows(path: Path, kind: Kind, done: int) -> Iterator[_Row]:
    """Rows of one .jsonl file; blank lines are skipped, and an empty text has no parts."""
    with opened(path) as (stream, file):
        for number, line in _filled_lines(stream):
            place = Place(path, "Line", number)
            yield _Row(row_parts(_parse_line(line, place), kind, place), done + file.tell())


def _filled_lines(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """(number, line) of the lines that are not blank; of one that is too long its first part."""
    for number, line in enumerate(iter(lambda: stream.readline(MAX_ROW), b""), start=1):
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if line.strip():
            yield number, line


def _parse_line(line: bytes, place: Place) -> Any:
    """What one line holds. Raises UserError with file and line number."""
    if len(line) >= MAX_ROW:
        place.refuse(f"is longer than {MAX_ROW} bytes", "split the document")
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        place.refuse(f"is not UTF-8 (byte {error.start} of the line)", "convert the file")
    except (ValueError, RecursionError) as error:
        place.refuse(f"is not valid JSON ({error})", "mend or remove it")


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
