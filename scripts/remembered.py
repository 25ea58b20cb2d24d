"""What a benchmark remembers: runs in a file that an interruption leaves whole, figures in one that grows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from aios.runs.training_log import repair_torn_line

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Job = TypeVar("Job", bound="DataclassInstance")


def recall(path: Path) -> list[dict[str, Any]]:
    """The records in the file, oldest first; a line that an interruption cut is removed from it."""
    if not path.exists():
        return []
    repair_torn_line(path)
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def remember(path: Path, record: Mapping[str, Any]) -> None:
    """Append a record, one line of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


class Remembered(Generic[Job]):
    """Results of jobs, one JSON line each; the later of two lines for the same job counts.

    A job is a frozen dataclass of plain values, and `job_of` makes it of them; equal jobs give equal results.
    """

    def __init__(self, path: Path, job_of: Callable[..., Job]) -> None:
        self.path = path
        self.records: dict[Job, dict[str, Any]] = {job_of(**record["job"]): record for record in recall(path)}
        """What is known: by job, its result and the job itself."""

    def add(self, job: Job, result: Mapping[str, Any]) -> None:
        """Remember the result of a job."""
        self.records[job] = {"job": asdict(job), **result}
        remember(self.path, self.records[job])


def put_figures(path: Path, told: Mapping[str, Any]) -> None:
    """Put figures into a JSON file, in the place of older ones of the same name."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**before, **told}, indent=2) + "\n", encoding="utf-8")
