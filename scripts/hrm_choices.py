"""What the choices of model and training that the papers differ in do to a short run; a part of `bench_hrm.py`.

Each is a training by `aios hrm-hf train` on the bundled text, all else as it is by default, with two seeds.
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


def train(flags: Sequence[str], seed: int) -> tuple[float, float]:
    """Evaluation loss at the end (nats per token), and seconds of the processor, of one training."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aios", "hrm-hf", "train", f"--bundle-dir={folder}", "--device=cpu"]
        command += [f"--steps={STEPS}", f"--batch-size={ROWS}", f"--max-seq-len={TOKENS}", f"--seed={seed}"]
        command += ["--eval-every=0", "--eval-batches=32", "--save-every=0", *flags]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with exit code {child.returncode}")
        lines = (Path(folder) / "default" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (final,) = (record for record in map(json.loads, lines) if record["event"] == "final")
    return float(final["eval_loss"]), usage.ru_utime + usage.ru_stime


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
