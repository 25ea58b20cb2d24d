"""What the choices of model and training that the papers differ in do to a short run; a part of `bench_hrm.py`.

Each is a training by `aios hrm-hf train` on the bundled text, all else as it is by default, with two seeds. So are the
optimizers, each at the learning rate that its own search found: a dense model, one with experts, and one that was
trained on Python's sources before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from lr_bench.problems.text import CODE, text_bytes

SEEDS = (0, 1)
STEPS = 300
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


def train(flags: Sequence[str], seed: int) -> tuple[float, float]:
    """Evaluation loss at the end (nats per token), and seconds of the processor, of one training."""
    with tempfile.TemporaryDirectory() as folder:
        return _train_into(Path(folder), flags, seed)


def _train_into(folder: Path, flags: Sequence[str], seed: int) -> tuple[float, float]:
    command = [sys.executable, "-m", "aios", "hrm-hf", "train", f"--bundle-dir={folder}", "--device=cpu"]
    command += [f"--steps={STEPS}", f"--batch-size={ROWS}", f"--max-seq-len={TOKENS}", f"--seed={seed}"]
    command += ["--eval-every=0", "--eval-batches=32", "--save-every=0", *flags]
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {child.returncode}")
    lines = (folder / "default" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (final,) = (record for record in map(json.loads, lines) if record["event"] == "final")
    return float(final["eval_loss"]), usage.ru_utime + usage.ru_stime


def _trained_on_sources(folder: Path) -> Path:
    """A brain that was trained on Python's sources, in `folder`."""
    text = folder / "sources.txt"
    text.write_bytes(text_bytes(CODE).numpy().tobytes())
    _train_into(folder, [f"--dataset-file={text}"], seed=100)
    return folder / "default"


def _with_all_seeds(flags: Sequence[str]) -> dict[str, Any]:
    """Evaluation losses of a training by seed, and the mean of its seconds."""
    losses, seconds = zip(*(train(flags, seed) for seed in SEEDS), strict=True)
    return {"eval_losses": losses, "seconds": statistics.mean(seconds)}


def _table(*columns: str) -> Table:
    return Table(*columns, title=f"{STEPS} steps of tiny")


_LOSSES = (*(f"seed {seed}" for seed in SEEDS), "mean")
"""Columns of a row's evaluation losses."""


def _losses(row: dict[str, Any]) -> list[str]:
    losses = row["eval_losses"]
    return [f"{loss:.3f}" for loss in (*losses, statistics.mean(losses))]


def measure_optimizers() -> list[dict[str, Any]]:
    """Each kind of training under each optimizer: losses by seed."""
    with tempfile.TemporaryDirectory() as folder:
        flags = {**KINDS, BEFORE: (f"--student-init={_trained_on_sources(Path(folder))}",)}
        return [
            {"kind": kind, "optimizer": name, **_with_all_seeds([f"--optimizer={name}", *flags[kind]])}
            for kind in KINDS
            for name in OPTIMIZERS
        ]


def optimizers_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_optimizers` returned, one row each."""
    table = _table("training", "optimizer", *_LOSSES)
    for row in rows:
        table.add_row(row["kind"], row["optimizer"], *_losses(row))
    return table


def measure_choices(names: Sequence[str] = tuple(CHOICES)) -> list[dict[str, Any]]:
    """Each choice beside the default: losses by seed, and the time it takes."""
    return [{"choice": name, **_with_all_seeds(CHOICES[name])} for name in names]


def choices_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_choices` returned, one row each."""
    table = _table("choice", *_LOSSES, "time")
    for row in rows:
        table.add_row(row["choice"], *_losses(row), f"{row['seconds'] / rows[0]['seconds']:.2f}")
    return table
