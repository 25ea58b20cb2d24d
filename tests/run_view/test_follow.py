"""The follower against everything that can happen to a log while it is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.errors import UserError
from aios.run_view import follow
from aios.run_view.follow import LogFollower
from aios.runs.training_log import repair_torn_line

LINES = [json.dumps({"event": "train", "step": step}).encode() + b"\n" for step in range(1, 6)]


def steps(records: list[dict[str, Any]]) -> list[int]:
    return [record["step"] for record in records]


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"".join(LINES[:2]))
    return path


def test_training_steps_are_left_out_where_asked(log: Path) -> None:
    append(log, b'{"event": "eval", "step": 2}\n[1]\n' + LINES[2])
    follower = LogFollower(log, follow.TRAIN_LINE)
    assert [record["event"] for record in follower.poll()] == ["eval"]
    assert (follower.good_lines, follower.bad_lines, follower.at_end) == (4, 1, True)


def test_each_line_comes_once(log: Path) -> None:
    follower = LogFollower(log)
    assert steps(follower.poll()) == [1, 2]
    assert follower.poll() == []
    append(log, LINES[2])
    assert steps(follower.poll()) == [3]
    assert follower.at_end
    assert not follower.restarted


def test_the_rest_is_all_that_is_new_however_many_looks_it_takes(log: Path) -> None:
    follower = LogFollower(log)
    assert steps(list(follower.rest())) == [1, 2]
    assert list(follower.rest()) == []
    append(log, b"".join(LINES[2:]) + b"x" * (follow.POLL_BYTES + 1) + b"\n" + LINES[0])
    assert steps(list(follower.rest())) == [3, 4, 5, 1]
    assert follower.no_log is None


def test_torn_line_is_kept_back_until_complete(log: Path) -> None:
    follower = LogFollower(log)
    append(log, LINES[2][:9])
    assert steps(follower.poll()) == [1, 2]
    append(log, LINES[2][9:-1])
    assert follower.poll() == []
    append(log, b"\n")
    assert steps(follower.poll()) == [3]
    assert follower.bad_lines == 0


def test_torn_line_that_the_trainer_repairs_is_no_new_log(log: Path) -> None:
    follower = LogFollower(log)
    append(log, LINES[2][:20])
    follower.poll()
    assert repair_torn_line(log) == 20
    append(log, LINES[3] + LINES[4])
    assert steps(follower.poll()) == [4, 5]
    assert not follower.restarted
    assert follower.bad_lines == 0


def test_rotated_log_starts_again(log: Path) -> None:
    follower = LogFollower(log)
    follower.poll()
    log.rename(log.with_suffix(".1"))
    log.write_bytes(b"".join(LINES[2:5]))
    assert steps(follower.poll()) == [3, 4, 5]
    assert follower.restarted
    assert follower.poll() == []
    assert not follower.restarted


@pytest.mark.parametrize("lines", [LINES[3:4], LINES[2:5]], ids=["shorter", "longer"])
def test_log_rewritten_in_place_starts_again(log: Path, lines: list[bytes]) -> None:
    inode = log.stat().st_ino
    follower = LogFollower(log)
    follower.poll()
    log.write_bytes(b"".join(lines))
    assert log.stat().st_ino == inode
    assert follower.poll() == [json.loads(line) for line in lines]
    assert follower.restarted


def test_deleted_log_is_a_state_and_is_picked_up_again(log: Path) -> None:
    follower = LogFollower(log)
    follower.poll()
    log.unlink()
    assert follower.poll() == []
    assert follower.missing
    log.write_bytes(LINES[3])
    assert steps(follower.poll()) == [4]
    assert follower.restarted
    assert not follower.missing


def test_log_that_does_not_exist_yet_is_no_restart(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path / "later.jsonl")
    assert follower.poll() == []
    assert follower.missing
    follower.path.write_bytes(LINES[0])
    assert steps(follower.poll()) == [1]
    assert not follower.restarted


def test_lines_that_are_no_objects_are_counted(log: Path) -> None:
    deep = b"[" * 100_000 + b"\n"
    append(log, b"nonsense\n[1]\n7\n\xff\xfe\n\n" + deep + LINES[2])
    follower = LogFollower(log)
    assert steps(follower.poll()) == [1, 2, 3]
    assert follower.bad_lines == 5
    assert follower.is_log


def test_file_with_nothing_but_bad_lines_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Sir\nor Madam\n", encoding="utf-8")
    follower = LogFollower(path)
    follower.poll()
    assert not follower.is_log


def test_line_longer_than_a_poll_is_read_whole(log: Path) -> None:
    long = {"event": "run_start", "step": 0, "text": "x" * 5000}
    append(log, json.dumps(long).encode() + b"\n" + LINES[2])
    follower, records = LogFollower(log), []
    while not follower.at_end:
        records += follower.poll(max_bytes=100)
    assert records[2] == long
    assert steps(records) == [1, 2, 0, 3]


def test_a_torn_line_is_not_read_again_until_the_file_changes(log: Path) -> None:
    append(log, b"x" * 5300)
    follower = LogFollower(log)
    assert steps(follower.poll(max_bytes=100)) + steps(follower.poll(max_bytes=100)) == [1, 2]
    assert follower.poll(max_bytes=100) == []
    before = log.stat()
    with log.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\n")
    os.utime(log, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert follower.poll() == []
    assert (follower.at_end, follower.bad_lines) == (True, 0)  # it looks unchanged, and 5 kB need not be read to see it
    os.utime(log)
    assert follower.poll() == []
    assert follower.bad_lines == 1
    append(log, LINES[2])
    assert steps(follower.poll()) == [3]


def test_endless_line_is_skipped_in_bounded_memory(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "MAX_LINE_BYTES", 1000)
    append(log, b"x" * 5300)
    follower = LogFollower(log)
    records = follower.poll(max_bytes=100)
    for _ in range(20):
        records += follower.poll(max_bytes=100)
    append(log, b"\n" + LINES[2])
    for _ in range(20):
        records += follower.poll(max_bytes=100)
    assert steps(records) == [1, 2, 3]
    assert follower.bad_lines == 1


def test_nothing_is_read_twice(log: Path) -> None:
    append(log, b"".join(LINES[2:]) * 200)
    follower = LogFollower(log)
    polls = [len(follower.poll(max_bytes=1000)) for _ in range(30)]
    assert sum(polls) == 602
    assert max(polls) <= 1000 // len(LINES[0])


def test_folder_is_refused_with_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        LogFollower(tmp_path).poll()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_log_without_rights_is_refused(log: Path) -> None:
    log.chmod(0)
    with pytest.raises(UserError, match="who may read it"):
        LogFollower(log).poll()


@given(cuts=st.lists(st.integers(0, 200), max_size=12), max_bytes=st.integers(1, 300))
def test_any_way_of_writing_gives_the_same_records(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], max_bytes: int
) -> None:
    data = b"".join(LINES) + b"bad\n" + LINES[0]
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    path.touch()
    follower, records, before = LogFollower(path), [], 0
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        append(path, data[before:cut])
        before = cut
        records += follower.poll(max_bytes)
    while not follower.at_end:
        records += follower.poll(max_bytes)
    assert steps(records) == [1, 2, 3, 4, 5, 1]
    assert follower.bad_lines == 1
