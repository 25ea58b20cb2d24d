"""Following a log without a window: growth, damage, disappearance."""

from __future__ import annotations

import json
from pathlib import Path

from aios.gui.run_feed import SLICE_BYTES, RunFeed


def record(step: int) -> str:
    return json.dumps({"event": "train", "ts": float(step), "step": step, "ce": 5.0, "lr": 1e-3}) + "\n"


def test_a_log_is_followed_as_it_grows(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    feed = RunFeed("run", log)
    assert not feed.poll(1)
    assert feed.problem is None  # not there yet: the training is starting
    log.write_text(record(1) + record(2)[:20], encoding="utf-8")
    assert feed.poll(1)
    assert feed.history.step == 1
    log.write_text(record(1) + record(2), encoding="utf-8")
    assert feed.poll(1)
    assert feed.history.step == 2
    assert not feed.poll(1)


def test_a_long_log_is_taken_in_slices(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(record(step) for step in range(1, 8000)), encoding="utf-8")
    assert log.stat().st_size > 3 * SLICE_BYTES
    feed = RunFeed("run", log)
    polls = 0
    while not feed.caught_up:
        assert feed.poll(0)  # one slice at a time
        polls += 1
    assert polls >= 4
    assert feed.history.step == 7999


def test_a_deleted_log_is_told_and_what_was_read_stays(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text(record(1), encoding="utf-8")
    feed = RunFeed("run", log)
    feed.poll(1)
    log.unlink()
    assert feed.poll(1)
    assert feed.problem is not None
    assert "is gone" in feed.problem
    assert feed.history.step == 1
    log.write_text(record(5), encoding="utf-8")
    feed.poll(1)
    assert feed.problem is None
    assert feed.history.step == 5


def test_what_is_no_log_is_called_so(tmp_path: Path) -> None:
    text = tmp_path / "poem.txt"
    text.write_text("The heavens declare\nthe glory\n", encoding="utf-8")
    feed = RunFeed("poem", text)
    feed.poll(1)
    assert feed.problem is not None
    assert "no training log" in feed.problem
    folder = RunFeed("folder", tmp_path)
    folder.poll(1)
    assert folder.problem is not None
    assert "cannot be read" in folder.problem
