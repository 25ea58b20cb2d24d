"""Tokenises a source once into a flat file of token ids and reads ranges of it back.

`<cache>/tokens/<key>.bin` holds the ids, little endian, 16 bit where the vocabulary allows, else 32; of instructions
they are signed, and a token that is only read, not learned, is the complement of its id.
`<key>.json`, the manifest, is written last and is the mark of a complete file. The key covers the format, the
tokenizer, the kind of the rows, the encoding, and the path, size and modification time of every input file, so a
changed input never meets old tokens.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import uuid
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from aios.data.decoding import UTF_8
from aios.data.rows import FORM_VERSION
from aios.data.text_source import SourceFile, TextPiece, TextSource, iter_pieces
from aios.data.tokenizer import end_of_document_id, tokenizer_fingerprint
from aios.errors import RunError, UserError
from aios.files import replace_file
from aios.places import cache_folder, expanded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FORMAT_VERSION = 1
"""Part of every key: raise it whenever the same text would give another token file."""

_BATCH_CHARS = 1024 * 1024
_STALE_SECONDS = 24 * 3600

ProgressCallback = Callable[[int, int], None]
"""Called with (bytes read, bytes in all) after each batch of the tokenisation."""


class TokenFile:
    """A flat file of token ids. Opened on first use, once per object; can be pickled and used after a fork.

    Reads go through `os.pread`: scattered reads of a memory map would count every page around them, in the
    end the whole file, towards the resident memory of the process.
    """

    def __init__(self, path: Path, count: int, dtype: str) -> None:
        self.path = path
        self.count = count
        self.dtype = dtype
        self._descriptor: int | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def has_unlearned(self) -> bool:
        """Whether tokens may be stored as complements: those that are only read."""
        return np.dtype(self.dtype).kind == "i"

    def __reduce__(self) -> tuple[type[TokenFile], tuple[Path, int, str]]:
        return TokenFile, (self.path, self.count, self.dtype)

    def read(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """The tokens [start, stop) as they are stored, shape [stop - start].

        Raises IndexError outside the file and RunError when the file has lost its end since it was built.
        """
        if not 0 <= start <= stop <= self.count:
            raise IndexError(f"tokens [{start}, {stop}) of a file of {self.count}")
        dtype = np.dtype(self.dtype)
        wanted = (stop - start) * dtype.itemsize
        data = os.pread(self._open(), wanted, start * dtype.itemsize)
        if len(data) != wanted:
            raise RunError(f"The token cache {self.path} was cut short while in use; run again to rebuild it.")
        return np.frombuffer(data, dtype).astype(np.int64)

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY)
            weakref.finalize(self, os.close, self._descriptor)
        return self._descriptor


def default_cache_dir() -> Path:
    """`AIOS_CACHE_DIR`, else the user's cache folder."""
    chosen = os.environ.get("AIOS_CACHE_DIR")
    return expanded(chosen) if chosen else cache_folder()


def tokenize_source(
    source: TextSource,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> TokenFile:
    """Token file of a source, cached or else built now. Safe to call from several processes at once.

    An end-of-text token follows each document, and each turn of an assistant. Text that spells a special token becomes
    that token, as in transformers. Raises UserError for unreadable input, input that changes meanwhile, and an
    unwritable cache.
    """
    folder = (cache_dir or default_cache_dir()) / "tokens"
    key = _cache_key(source, tokenizer)
    cached = _open_cached(folder, key)
    if cached is not None:
        return cached
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        return _build(source, tokenizer, folder, key, on_progress)
    except OSError as error:
        raise UserError(
            f"The token cache {folder} cannot be written ({error}); "
            "set AIOS_CACHE_DIR to a folder with enough space that you may write to."
        ) from error


def _cache_key(source: TextSource, tokenizer: PreTrainedTokenizerBase) -> str:
    files = [[str(file.path), file.size, file.mtime_ns] for file in source.files]
    content: list[object] = [FORMAT_VERSION, tokenizer_fingerprint(tokenizer), files]
    if source.kind != "text":
        content += [source.kind, FORM_VERSION]
    if source.encoding != UTF_8:
        content += ["encoding", source.encoding]
    return hashlib.sha256(json.dumps(content).encode("utf-8")).hexdigest()


def _open_cached(folder: Path, key: str) -> TokenFile | None:
    """The cached token file, or None when it is missing, incomplete or damaged."""
    path = folder / f"{key}.bin"
    try:
        manifest = json.loads((folder / f"{key}.json").read_text(encoding="utf-8"))
        count, dtype = int(manifest["count"]), str(manifest["dtype"])
        complete = path.stat().st_size == count * np.dtype(dtype).itemsize
    except (OSError, ValueError, KeyError, TypeError):
        return None  # whatever is wrong with it, the remedy is the same: build it again
    return TokenFile(path, count, dtype) if complete else None


def _remove_stale(folder: Path) -> None:
    """Delete what builds killed a day or more ago left behind."""
    for path in folder.glob("*.tmp"):
        with contextlib.suppress(FileNotFoundError):  # another process may clean up too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                path.unlink()


def _build(
    source: TextSource,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    key: str,
    on_progress: ProgressCallback | None,
) -> TokenFile:
    dtype = _token_dtype(tokenizer, signed=source.kind != "text")
    count = 0

    def write_tokens(stream: BinaryIO) -> None:
        nonlocal count
        for ids, bytes_done in _encode(source, tokenizer, dtype):
            stream.write(ids.tobytes())
            count += len(ids)
            if on_progress is not None:
                on_progress(bytes_done, source.total_bytes)
        _refuse_changed(source.files)

    path = folder / f"{key}.bin"
    _write(path, write_tokens)
    manifest = {"count": count, "dtype": dtype, "source": source.name, "source_bytes": source.total_bytes}
    line = json.dumps(manifest).encode("utf-8") + b"\n"
    _write(folder / f"{key}.json", lambda stream: stream.write(line))
    return TokenFile(path, count, dtype)


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Make `path` complete or absent, whoever builds the same at the same time."""
    replace_file(path, write, first=f"{path.name}.{uuid.uuid4().hex}.tmp")


def _refuse_changed(files: tuple[SourceFile, ...]) -> None:
    for file in files:
        try:
            status = file.path.stat()
            unchanged = (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
        except FileNotFoundError:
            unchanged = False
        if not unchanged:
            raise UserError(f"The dataset file {file.path} changed while it was read; wait and run again.")


def _token_dtype(tokenizer: PreTrainedTokenizerBase, signed: bool) -> str:
    largest = max(max(tokenizer.get_vocab().values()), end_of_document_id(tokenizer))
    if signed:
        return "<i2" if largest < 2**15 else "<i4"
    return "<u2" if largest < 2**16 else "<u4"


def _encode(
    source: TextSource, tokenizer: PreTrainedTokenizerBase, dtype: str
) -> Iterator[tuple[npt.NDArray[Any], int]]:
    """Yield (token ids, bytes of the source done) batch by batch."""
    encode_texts = _batch_encoder(tokenizer)
    end = [end_of_document_id(tokenizer)]
    for batch in _batches(iter_pieces(source)):
        ids: list[int] = []
        for piece, piece_ids in zip(batch, encode_texts([piece.text for piece in batch]), strict=True):
            if piece.ends_document:
                piece_ids = piece_ids + end
            ids += piece_ids if piece.learned else [~token for token in piece_ids]
        yield np.asarray(ids, dtype), batch[-1].bytes_done


def _batches(pieces: Iterator[TextPiece]) -> Iterator[list[TextPiece]]:
    """Group pieces to about `_BATCH_CHARS` characters: keeps all cores busy and memory small."""
    batch: list[TextPiece] = []
    chars = 0
    for piece in pieces:
        batch.append(piece)
        chars += len(piece.text) + 1
        if chars >= _BATCH_CHARS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


def _batch_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], Iterator[list[int]]]:
    """Encoder of many texts, in parallel where it can; no tokens around them, no truncation or padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return lambda texts: (tokenizer.encode(text, add_special_tokens=False) for text in texts)
    own = type(backend).from_str(backend.to_str())  # a copy: the caller's keeps its settings
    own.no_truncation()
    own.no_padding()
    return lambda texts: (encoding.ids for encoding in own.encode_batch_fast(texts, add_special_tokens=False))
