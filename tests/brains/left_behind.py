"""What trainings leave on disk, written for tests; and a training that holds its brain."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aios.brains.process_identity import birth_of
from aios.brains.session_file import SessionFile

START = {"event": "run_start", "config": {"steps": 40}}
TRAIN = {"event": "train", "ce": 5.25}
NOBODY = 2**22 + 1  # above the largest process number of Linux


def write_log(folder: Path, *events: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "metrics.jsonl"
    lines = [json.dumps({"ts": time.time(), "step": at + 1, **event}) for at, event in enumerate(events)]
    log.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return log


def write_session(folder: Path, pid: int = NOBODY, output: str = "", **more: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "output.txt").write_text(output, encoding="utf-8")
    SessionFile(
        pid, birth_of(pid), time.time() - 60, ["aios"], str(folder / "metrics.jsonl"), str(folder / "STOP"),
        str(folder / "output.txt"), 600, **more,
    ).save(folder)  # fmt: skip


@contextmanager
def training_elsewhere(folder: Path) -> Iterator[None]:
    """While the block runs another process holds the brain's lock, as every training does."""
    code = "import sys, pathlib, aios.runs.lock as l\nwith l.BrainLock(pathlib.Path(sys.argv[1])): print(); input()"
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield
        holder.kill()
