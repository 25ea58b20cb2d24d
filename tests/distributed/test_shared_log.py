"""Several processes append to one log at once: every line stays whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from aios.runs.training_log import TrainingLog

WRITER = """
import sys
from pathlib import Path
from aios.runs.training_log import TrainingLog
rank = int(sys.argv[2])
with TrainingLog(Path(sys.argv[1]), repair=False) as log:
    for step in range(300):
        log.write({"event": "train", "step": step, "rank": rank, "padding": "x" * (step % 7 * 5000)})
"""


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"event": "train", "step": 0}\n{"event": "tor')
    with TrainingLog(path):  # the one that repairs it
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(rank)]) for rank in range(3)]
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for rank in range(3):
        assert [r["step"] for r in records if r.get("rank") == rank] == list(range(300))
    assert len(records) == 901


def test_a_second_writer_does_not_cut_the_line_that_is_just_being_written(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"half": ')
    with TrainingLog(path, repair=False):
        pass
    assert path.read_text() == '{"half": '
