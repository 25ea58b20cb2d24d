"""Rows of Parquet files, and of the Arrow files that `datasets.save_to_disk` leaves, a few at a time.

Of the latter pyarrow reads all that is needed: they are plain Arrow streams, and `state.json` lists them. The package
datasets would bring a dozen others along, and take a second to import.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aios.core.foreign_json import read_foreign_json
from aios.data.rows import KEYS, Kind, kind_of
from aios.errors import UserError, one_line, shown
from aios.extras import load

TABLE_SUFFIXES = frozenset({".parquet", ".arrow"})
STATE_FILE = "state.json"
"""Marks a folder that `datasets.save_to_disk` wrote."""
SPLITS_FILE = "dataset_dict.json"
"""Marks one of several of them."""

_ROWS_AT_A_TIME = 32
_BUFFER_BYTES = 1024 * 1024
_END_BYTES = 8
"""Mark the end of an Arrow stream, behind its last batch."""


class TableRow(NamedTuple):
    """One row and how far its file is read."""

    row: dict[str, Any]
    """Values by column."""
    share_read: float
    """0 to 1, of the file."""


def is_table(path: Path) -> bool:
    """Whether pyarrow reads the file."""
    return path.suffix.lower() in TABLE_SUFFIXES


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `datasets.save_to_disk` wrote, in order.

    Raises:
        UserError: where there is no row, the folder does not say which files, or they would lie elsewhere.
    """
    listed = read_foreign_json(folder / STATE_FILE).get("_data_files")
    if listed == []:
        raise UserError(f"The dataset folder {folder} holds no row; give one with text.")
    entries = listed if isinstance(listed, list) else []
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in entries]
    for name in names:
        if not isinstance(name, str) or not name.endswith(".arrow") or Path(name).name != name:
            raise UserError(f"{folder / STATE_FILE} lists {shown(name)} as a file of the dataset; save it again.")
    if not names:
        raise UserError(f"{folder / STATE_FILE} lists no file of the dataset; save it again.")
    return [folder / str(name) for name in names]


def table_kind(path: Path) -> Kind:
    """The kind of all rows of a file, by its columns; UserError where they are of none."""
    with _reading(path):
        return _kind(path, _table(path).names)


def table_rows(path: Path) -> Iterator[TableRow]:
    """All rows of a file, the columns of its kind only."""
    with _reading(path):
        table = _table(path)
        columns, done = list(KEYS[_kind(path, table.names)]), 0
        for batch in table.batches(columns):
            done += batch.num_rows
            share = table.share_read(done)
            yield from (TableRow(row, share) for row in batch.to_pylist())


def _table(path: Path) -> _Parquet | _Arrow:
    return _Parquet(path) if path.suffix.lower() == ".parquet" else _Arrow(path)


class _Parquet:
    """A Parquet file; of each column a page is in memory, not the file."""

    def __init__(self, path: Path) -> None:
        self._file = load("pyarrow.parquet").ParquetFile(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        self.names: list[str] = self._file.schema_arrow.names

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        yield from map(_sound, self._file.iter_batches(batch_size=_ROWS_AT_A_TIME, columns=columns, use_threads=False))

    def share_read(self, rows: int) -> float:
        """After so many rows."""
        return float(rows / max(1, self._file.metadata.num_rows))


class _Arrow:
    """A stream of record batches. It is not mapped: a map's pages would count towards the memory of the process."""

    def __init__(self, path: Path) -> None:
        self._file = load("pyarrow").OSFile(str(path), "rb")
        self._stream = load("pyarrow.ipc").open_stream(self._file)
        self.names: list[str] = self._stream.schema.names

    def batches(self, columns: list[str]) -> Iterator[Any]:
        """Record batches of these columns."""
        for batch in self._stream:
            chosen = _sound(batch.select(columns))
            for first in range(0, chosen.num_rows, _ROWS_AT_A_TIME):
                yield chosen.slice(first, _ROWS_AT_A_TIME)

    def share_read(self, rows: int) -> float:
        """Whatever the rows, as the batches lie in the file."""
        return float((self._file.tell() + _END_BYTES) / max(_END_BYTES, self._file.size()))


def _sound(batch: Any) -> Any:
    """The batch, once its offsets and its UTF-8 were looked at: the file may be a stranger's."""
    batch.validate(full=True)
    return batch


def _kind(path: Path, names: list[str]) -> Kind:
    kind = kind_of(names)
    if kind is None:
        found = ", ".join(names[:10]) or "none"
        raise UserError(
            f"The dataset file {path} has no column text, no prompt and completion, no messages (its columns: "
            f"{shown(found)}); rename the one that holds the text."
        )
    return kind


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    arrow = load("pyarrow")
    try:
        yield
    except (arrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = one_line(error).rstrip(".")
        raise UserError(
            f"The dataset file {path} cannot be read as {path.suffix[1:].lower()} ({reason}); fetch or save it again."
        ) from error
