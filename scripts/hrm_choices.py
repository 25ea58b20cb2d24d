"""What the choices of model and training that the papers differ in do to a run; a part of `bench_hrm.py`.

Each is a training by `aios hrm-hf train` on the bundled text, all else as it is by default, with two seeds. So are the
optimizers, each at the learning rate that its own search found: a dense model, one with experts, and one that was
trained on Python's sources before. Every training is remembered: what was interrupted goes on.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from lr_bench.problems.text import CODE, text_bytes
from remembered import Remembered

SEEDS = (0, 1)
STEPS = 300
"""Of a training, unless more are asked for."""
ROWS, TOKENS = 4, 32
CHOICES: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "--corrected-init": ("--corrected-init",),
    "--no-halting": ("--no-halting",),
    "--eval-segments 4": ("--eval-segments=4",),
    "--ema 0.999": ("--ema=0.999",),
    "--last-cycle-gradient": ("--last-cycle-gradient",),
    "--shared-stack": ("--shared-stack",),
    "--update-per-segment": ("--update-per-segment",),
}
"""Flags of each choice."""


OPTIMIZERS = ("adamw", "muon")
KINDS: dict[str, tuple[str, ...]] = {"dense": (), "experts": ("--use-moe",), "trained before": ()}
"""Flags of each kind of training that the optimizers are compared in."""
BEFORE = "trained before"


@dataclass(frozen=True)
class Training:
    """One run of the command; equal ones give equal losses."""

    flags: str
    """With blanks between them."""
    seed: int
    steps: int
    before: bool = False
    """Whether it goes on with a model that was trained on Python's sources."""


@dataclass(frozen=True)
class Trainings:
    """What has been run, and the folder that remembers it."""

    folder: Path
    runs: Remembered[Training]

    @classmethod
    def open(cls, folder: Path) -> Trainings:
        """Read what there is."""
        return cls(folder, Remembered(folder / "trainings.jsonl", Training))

    def result(self, training: Training) -> tuple[float, float]:
        """Evaluation loss at the end (nats per token), and seconds of the processor; it is run if it has not been."""
        if training not in self.runs.records:
            flags = [*training.flags.split(), *([f"--student-init={self._before()}"] if training.before else [])]
            with tempfile.TemporaryDirectory() as folder:
                loss, seconds = train(Path(folder), flags, training.seed, training.steps)
            self.runs.add(training, {"eval_loss": loss, "seconds": seconds})
        record = self.runs.records[training]
        return record["eval_loss"], record["seconds"]

    def with_all_seeds(self, flags: Sequence[str], steps: int, *, before: bool = False) -> dict[str, Any]:
        """Evaluation losses of a training by seed, and the mean of its seconds."""
        wanted = [Training(" ".join(flags), seed, steps, before) for seed in SEEDS]
        losses, seconds = zip(*map(self.result, wanted), strict=True)
        return {"steps": steps, "eval_losses": losses, "seconds": statistics.mean(seconds)}

    def _before(self) -> Path:
        """The brain that was trained on Python's sources, made once."""
        brain = self.folder / "before" / "default"
        if not (brain / "config.json").exists():
            text = self.folder / "sources.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_bytes(text_bytes(CODE).numpy().tobytes())
            train(brain.parent, [f"--dataset-file={text}"], seed=100, steps=STEPS)
        return brain


def train(folder: Path, flags: Sequence[str], seed: int, steps: int) -> tuple[float, float]:
    """Train into `folder`: evaluation loss at the end (nats per token), and seconds of the processor."""
    command = [sys.executable, "-m", "aios", "hrm-hf", "train", f"--bundle-dir={folder}", "--device=cpu"]
    command += [f"--steps={steps}", f"--batch-size={ROWS}", f"--max-seq-len={TOKENS}", f"--seed={seed}"]
    command += ["--eval-every=0", "--eval-batches=32", "--save-every=0", *flags]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {child.returncode}")
    lines = (folder / "default" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (final,) = (record for record in map(json.loads, lines) if record["event"] == "final")
    return float(final["eval_loss"]), usage.ru_utime + usage.ru_stime


def measure_optimizers(trainings: Trainings, steps: int) -> list[dict[str, Any]]:
    """Each kind of training under each optimizer: losses by seed."""
    return [
        {
            "kind": kind,
            "optimizer": name,
            **trainings.with_all_seeds([f"--optimizer={name}", *KINDS[kind]], steps, before=kind == BEFORE),
        }
        for kind in KINDS
        for name in OPTIMIZERS
    ]


def optimizers_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_optimizers` returned, one row each."""
    table = _table(rows, "training", "optimizer", *_LOSSES)
    for row in rows:
        table.add_row(row["kind"], row["optimizer"], *_losses(row))
    return table


def measure_choices(trainings: Trainings, steps: int) -> list[dict[str, Any]]:
    """Each choice beside the default: losses by seed, and the time it takes."""
    return [{"choice": name, **trainings.with_all_seeds(flags, steps)} for name, flags in CHOICES.items()]


def choices_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_choices` returned, one row each."""
    table = _table(rows, "choice", *_LOSSES, "time")
    for row in rows:
        table.add_row(row["choice"], *_losses(row), f"{row['seconds'] / rows[0]['seconds']:.2f}")
    return table


_LOSSES = (*(f"seed {seed}" for seed in SEEDS), "mean")
"""Columns of a row's evaluation losses."""


def _losses(row: dict[str, Any]) -> list[str]:
    losses = row["eval_losses"]
    return [f"{loss:.3f}" for loss in (*losses, statistics.mean(losses))]


def _table(rows: Sequence[dict[str, Any]], *columns: str) -> Table:
    return Table(*columns, title=f"{rows[0]['steps']} steps of tiny")
