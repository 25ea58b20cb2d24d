"""The log is always valid JSON lines, whatever is written and however the writer died."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.runs.training_log import TrainingLog, repair_torn_line, write_jsonl

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def _non_finite(value: object) -> bool:
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_non_finite, value.values()))
    return isinstance(value, list) and any(map(_non_finite, value))


@given(st.dictionaries(st.text(), values, max_size=4))
def test_any_record_is_one_line_of_strict_json(record: dict[str, object]) -> None:
    stream = io.StringIO()
    write_jsonl(stream, record)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert "\n" not in text[:-1]
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert (read.get("non_finite") is True) or not _non_finite(record)
    if not _non_finite(record):
        assert read == record


def test_nan_becomes_null_with_a_mark() -> None:
    stream = io.StringIO()
    write_jsonl(stream, {"loss": math.nan, "metrics": {"cv": math.inf}, "lr": 1e-3})
    assert json.loads(stream.getvalue()) == {"loss": None, "metrics": {"cv": None}, "lr": 1e-3, "non_finite": True}


@pytest.mark.parametrize("torn", [b"", b'{"event": "tra', b"x" * 200_000])
def test_torn_last_line_is_cut_and_nothing_else(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "log.jsonl"
    whole = b'{"event": "a"}\n{"event": "b"}\n'
    path.write_bytes(whole + torn)
    assert repair_torn_line(path) == len(torn)
    assert path.read_bytes() == whole


def test_appends_across_openings_and_stamps_the_time(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "log.jsonl"
    for step in (1, 2):
        with TrainingLog(path) as log:
            log.write({"event": "train", "step": step})
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [r["step"] for r in records] == [1, 2]
    assert all(r["ts"] > 1.6e9 for r in records)


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_log_taken_away_is_brought_back_whole_for_all_who_write_it(tmp_path: Path, with_folder: bool) -> None:
    path = tmp_path / "brain" / "metrics.jsonl"
    with TrainingLog(path) as log, TrainingLog(path, repair=False) as worker:
        log.write({"event": "train", "step": 1})
        path.unlink()
        if with_folder:
            path.parent.rmdir()
        worker.write({"event": "train", "step": 2})
        log.write({"event": "train", "step": 3})
        assert log.sync()
        worker.write({"event": "train", "step": 4})
        log.write({"event": "train", "step": 5})
        assert not log.sync()
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2, 3, 4, 5]


def test_records_go_to_the_file_that_took_the_place_of_the_open_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with TrainingLog(path) as log:
        log.write({"event": "train", "step": 1})
        edited = tmp_path / "edited"
        edited.write_bytes(path.read_bytes())
        edited.replace(path)
        log.write({"event": "train", "step": 2})
    assert [json.loads(line)["step"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 2]
