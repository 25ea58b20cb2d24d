"""What a case of the campaign is, what came of it, and the file that remembers it."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from remembered import recall, remember

HELD = "held"
LOST = "lost"
SILENT = "silent_difference"
TRACEBACK = "traceback"
WRONG_EXIT = "wrong_exit"
LIBRARY = "library_text"
"""The error was said, but in the words of a library, not in a sentence of the project's own."""
HANG = "hang"
TOUCHED = "touched_outside"
CODE_RUN = "code_run"
BROKEN_LOG = "broken_log"
UNLOADABLE = "unloadable_brain"
ORPHAN = "orphan"
MISSED = "missed"
"""The fault never happened (the process had ended before, a call was not made): proves nothing, harms nothing."""


@dataclass(frozen=True)
class Case:
    """One fault, or one chain of faults on one brain; equal cases inject the same."""

    kind: str
    name: str
    """Unique within the kind; says what is done."""
    seed: int
    faults: int = 1
    """How many faults it injects."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case."""

    verdict: str
    detail: str = ""
    """What was seen, in a sentence; empty where all went as promised."""
    faults: int | None = None
    """Faults that really happened, where that may differ from the planned number."""


class Judged(Exception):  # noqa: N818  not an error of the program: the end of a case
    """Ends a case early with its outcome."""

    def __init__(self, verdict: str, detail: str) -> None:
        super().__init__(detail)
        self.outcome = Outcome(verdict, detail)


def code_id(root: Path) -> str:
    """Names the code under test: results of other code do not count."""
    digest = hashlib.sha256()
    for path in sorted((root / "src").rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


@dataclass
class Store:
    """Outcomes of cases, one JSON line each; the later of two lines for the same case counts."""

    path: Path
    code: str
    records: dict[Case, dict[str, Any]] = field(default_factory=dict)
    """Of the present code alone."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(cls, path: Path, code: str) -> Store:
        """Read what there is; a line that an interruption cut is removed from the file."""
        store = cls(path, code)
        store.records = {_case(record): record for record in recall(path) if record["code"] == code}
        return store

    def add(self, case: Case, outcome: Outcome, seconds: float) -> dict[str, Any]:
        """Remember the outcome of a case that took `seconds`; returns the record."""
        faults = case.faults if outcome.faults is None else outcome.faults
        record = {
            **asdict(case),
            "faults": faults,
            "planned": case.faults,
            "verdict": outcome.verdict,
            "detail": outcome.detail,
            "seconds": round(seconds, 2),
            "code": self.code,
        }
        with self._lock:
            remember(self.path, record)
            self.records[case] = record
        return record

    def forget(self, kinds: tuple[str, ...]) -> None:
        """Drop the outcomes of these kinds for the present code, to have them again."""
        self.records = {case: record for case, record in self.records.items() if case.kind not in kinds}
        if self.path.exists():
            lines = [line for line in self.path.read_text(encoding="utf-8").splitlines() if self._kept(line, kinds)]
            self.path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _kept(self, line: str, kinds: tuple[str, ...]) -> bool:
        record = json.loads(line)
        return record["code"] != self.code or record["kind"] not in kinds


def _case(record: dict[str, Any]) -> Case:
    return Case(record["kind"], record["name"], record["seed"], record["planned"])
