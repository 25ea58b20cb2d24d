"""Brains to harm: how they are trained, and whether what is left of one is what it should be."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.records import BROKEN_LOG, LIBRARY, LOST, SILENT, UNLOADABLE, WRONG_EXIT, Judged, Outcome

TINY = (
    *("--hidden-size=32", "--num-heads=2", "--h-layers=1", "--l-layers=1", "--h-cycles=1", "--l-cycles=1"),
    *("--halt-max-steps=1", "--max-seq-len=16", "--batch-size=2", "--eval-batches=2", "--device=cpu"),
)
"""Flags of a model that takes a few milliseconds a step."""
EXACT_KEYS = ("loss", "ce", "lr", "grad_norm", "used_segments", "lb_loss")
_loading = threading.Lock()
PUBLISHED = ("model.safetensors", "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_OF_A_SITTING = tuple(f"adaptive_lr_{name}" for name in ("init", "restored", "summary", "state_missing", "disabled"))
_VARYING = ("ts", "step_time_s", "tokens_per_sec", "seconds", "wall_s", "path", "reason", "numbers")


def train_args(folder: Path, *flags: str) -> list[str]:
    """Arguments that train the brain `folder`/brain; later flags win."""
    return ["hrm-hf", "train", *TINY, f"--bundle-dir={folder}", "--brain-name=brain", *flags]


def read_records(log: Path, torn: bool = False) -> list[dict[str, Any]]:
    """All records of a log; `torn` allows a last line that is cut.

    Raises:
        Judged: when a line is no JSON object.
    """
    if not log.exists():
        return []
    lines = log.read_bytes().split(b"\n")
    last = lines.pop()
    if last and not torn:
        raise Judged(BROKEN_LOG, f"the log ends in a torn line: {last[:80]!r}")
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except ValueError:
            raise Judged(BROKEN_LOG, f"line {number} of the log is no JSON: {line[:80]!r}") from None
        if not isinstance(record, dict):
            raise Judged(BROKEN_LOG, f"line {number} of the log is no object: {line[:80]!r}")
        records.append(record)
    return records


def last_start(records: list[dict[str, Any]]) -> int | None:
    """The step at which the newest sitting of a log began; None where there is none."""
    starts = [record["step"] for record in records if record["event"] in ("run_start", "run_resumed")]
    return starts[-1] if starts else None


def last_saved(records: list[dict[str, Any]]) -> int | None:
    """The step of the newest save that the log tells of."""
    return max((record["step"] for record in records if record["event"] == "checkpoint"), default=None)


@dataclass(frozen=True)
class Print:
    """All of a finished run that must not depend on what happened on the way."""

    trained: dict[int, tuple[Any, ...]]
    """By step: the numbers of the newest train record."""
    evaluated: dict[int, float]
    """Evaluation loss by step."""
    decided: dict[tuple[str, int], str]
    """What the learning rate did, by event and step."""
    published: dict[str, str]
    """SHA-256 of each published file."""
    final: tuple[int, float] | None
    """(steps, evaluation loss) of the last record."""


def fingerprint(brain: Path) -> Print:
    """Of a finished run, from its log and the published files."""
    trained, evaluated, decided, final = {}, {}, {}, None
    for record in read_records(brain / "metrics.jsonl"):
        event, step = record["event"], record["step"]
        if event == "train":
            trained[step] = tuple(json.dumps(record.get(key)) for key in EXACT_KEYS)
        elif event == "eval":
            evaluated[step] = record["loss"]
        elif event == "final":
            final = record["steps"], record["eval_loss"]
        elif event.startswith("adaptive_lr_") and event not in _OF_A_SITTING and not _said_again(record):
            plain = {key: value for key, value in record.items() if key not in _VARYING}
            decided[event, step] = json.dumps(plain, sort_keys=True)
    files = {name: sha256(brain / name) for name in PUBLISHED if (brain / name).is_file()}
    return Print(trained, evaluated, decided, files, final)


def _said_again(record: dict[str, Any]) -> bool:
    """Whether a run that was resumed inside its anneal tells of it once more."""
    return record["event"] == "adaptive_lr_anneal" and bool(record["step"] > record["start"])


def check_same(brain: Path, reference: Print, from_step: int = 0, files: bool = True) -> None:
    """Compare a finished run with an undisturbed one; records up to `from_step` may be missing, never differ.

    Raises:
        Judged: naming the first difference.
    """
    found = fingerprint(brain)
    if found.final is None:
        raise Judged(LOST, "the log has no final record")
    if reference.final is not None and found.final[0] != reference.final[0]:
        raise Judged(LOST, f"the last final record is of step {found.final[0]}")
    if found.final != reference.final:
        raise Judged(SILENT, f"final {found.final} instead of {reference.final}")
    for what in ("trained", "evaluated", "decided"):
        _check_records(what, getattr(found, what), getattr(reference, what), from_step)
    for name, digest in reference.published.items() if files else ():
        if found.published.get(name) != digest:
            raise Judged(SILENT, f"the published {name} is {'another' if name in found.published else 'missing'}")


def _check_records(what: str, found: dict[Any, Any], wanted: dict[Any, Any], from_step: int) -> None:
    for key, value in wanted.items():
        step = key if isinstance(key, int) else key[1]
        if key in found and found[key] != value:
            raise Judged(SILENT, f"{what} at {key}: {found[key]} instead of {value}")
        if key not in found and step > from_step:
            raise Judged(LOST, f"{what} at {key} is missing in the log")
    if surplus := set(found) - set(wanted):
        raise Judged(SILENT, f"{what} at {min(surplus, key=str)} is too much")


def check_loads(brain: Path) -> None:
    """Judge a brain that transformers cannot load."""
    with _loading:  # its lazy imports are not made for several threads
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        import aios.core.hrm_models  # noqa: F401  registers the model

        logging.disable_progress_bar()
        try:
            AutoModelForCausalLM.from_pretrained(brain)
            AutoTokenizer.from_pretrained(brain)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise Judged(UNLOADABLE, f"transformers: {error!r}"[:300]) from error


def bad_wording(said: str) -> Outcome | None:
    """An outcome where an error is no single sentence of the project's own (`Error: SomeError: ...` is a library's)."""
    lines = [line for line in said.splitlines() if line.startswith("Error: ")]
    if len(lines) != 1:
        return Outcome(WRONG_EXIT, f"{len(lines)} errors said instead of one: {' '.join(said.split())[-300:]}")
    if re.match(r"Error: \w*(Error|Exception|Interrupt)\b: ", lines[0]):
        return Outcome(LIBRARY, lines[0][:300])
    return None


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
