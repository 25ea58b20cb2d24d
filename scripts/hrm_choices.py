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
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

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
SOURCE_BYTES = 1_000_000


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
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    text = folder / "sources.txt"
    text.write_bytes(b"".join(source.read_bytes() for source in sources)[:SOURCE_BYTES])
    _train_into(folder, [f"--dataset-file={text}"], seed=100)
    return folder / "default"


def measure_optimizers() -> list[dict[str, Any]]:
    """Evaluation losses, by seed, of each kind of training under each optimizer."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        flags = {**KINDS, BEFORE: (f"--student-init={_trained_on_sources(Path(folder))}",)}
        for kind in KINDS:
            for optimizer in OPTIMIZERS:
                runs = [train([f"--optimizer={optimizer}", *flags[kind]], seed) for seed in SEEDS]
                losses, seconds = zip(*runs, strict=True)
                row = {"kind": kind, "optimizer": optimizer, "eval_losses": losses}
                rows.append({**row, "seconds": statistics.mean(seconds)})
    return rows


def optimizers_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_optimizers` returned, one row each."""
    table = Table("training", "optimizer", *(f"seed {seed}" for seed in SEEDS), "mean", title=f"{STEPS} steps of tiny")
    for row in rows:
        losses = row["eval_losses"]
        cells = [*(f"{loss:.3f}" for loss in losses), f"{statistics.mean(losses):.3f}"]
        table.add_row(row["kind"], row["optimizer"], *cells)
    return table


def measure_choices(names: Sequence[str] = tuple(CHOICES)) -> list[dict[str, Any]]:
    """Each choice beside the default: losses by seed, and the time it takes."""
    rows = []
    for name in names:
        runs = [train(CHOICES[name], seed) for seed in SEEDS]
        losses, seconds = zip(*runs, strict=True)
        rows.append({"choice": name, "eval_losses": losses, "seconds": statistics.mean(seconds)})
    return rows


def choices_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_choices` returned, one row each."""
    table = Table("choice", *(f"seed {seed}" for seed in SEEDS), "mean", "time", title=f"{STEPS} steps of tiny")
    for row in rows:
        losses = row["eval_losses"]
        cells = [*(f"{loss:.3f}" for loss in losses), f"{statistics.mean(losses):.3f}"]
        table.add_row(row["choice"], *cells, f"{row['seconds'] / rows[0]['seconds']:.2f}")
    return table
