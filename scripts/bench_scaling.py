"""What each way of using several workers costs: tokens per second beside plain DDP code with the same model.

For shared weights our step loop and a bare DistributedDataParallel loop run in turns in the same processes (CPU, gloo),
so that a busy machine slows both. Independent workers are whole runs, merges included, beside the plain code's blocks.

    python scripts/bench_scaling.py --json docs/benchmarks/scaling.json

Prints a table; exits 1 when DDP or independent workers are slower than 0.97 of the plain DDP code, or a ZeRO stage is
slower than 0.97 of plain DeepSpeed code, which runs in turns with it, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

TARGET = 0.97
BATCH, SEQ_LEN, STEPS = 8, 128, 10  # the defaults of TrainingConfig, and of scaling_worker.py
INDEPENDENT_STEPS, MERGE_EVERY = 120, 40
ROWS = (("plain", 1), ("ddp", 1), ("ddp", 2), ("zero1", 2), ("zero2", 2), ("zero3", 2))
WORKER = Path(__file__).with_name("scaling_worker.py")


def rounds_of(mode: str, workers: int) -> list[list[float]]:
    """Seconds per step, round by round: ours, plain DDP, and for a ZeRO stage plain DeepSpeed."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "rounds.json"
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={workers}"]
        subprocess.run([*launch, str(WORKER), mode, str(result)], check=True, env=one_thread())
        rounds: list[list[float]] = json.loads(result.read_text(encoding="utf-8"))
        return rounds


def independent_tokens_per_second(workers: int) -> float:
    """Of a whole run after its first steps, merges included."""
    with tempfile.TemporaryDirectory() as folder:
        args = ["--parallel-independent", f"--world-size={workers}", f"--merge-every={MERGE_EVERY}"]
        args += [f"--steps={INDEPENDENT_STEPS}", "--lr=1e-3", "--device=cpu", "--eval-every=0", "--save-every=0"]
        command = [sys.executable, "-m", "aios", "hrm-hf", "train", f"--bundle-dir={folder}", *args]
        subprocess.run(command, check=True, env=one_thread(), stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "default" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    times = [r["ts"] for r in records if r["event"] == "train" and r["step"] > STEPS]
    tokens = len(times) * BATCH * SEQ_LEN
    return tokens / (max(times) - min(times))


def one_thread() -> dict[str, str]:
    """One thread per worker: they share the cores."""
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def row_of(mode: str, workers: int) -> dict[str, Any]:
    """Tokens per second of each side and the medians of the ratios round by round."""
    rounds = rounds_of(mode, workers)
    tokens = BATCH * SEQ_LEN * workers
    medians = [tokens / statistics.median(side) for side in zip(*rounds, strict=True)]
    row = {"mode": "one process" if mode == "plain" else mode, "workers": workers, "ours": medians[0]}
    row |= {"plain": medians[1], "ratio": statistics.median(r[1] / r[0] for r in rounds)}
    if len(medians) == 3:
        row |= {"deepspeed": medians[2], "deepspeed_ratio": statistics.median(r[2] / r[0] for r in rounds)}
    return row


def table_of(rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    table = Table("mode", "workers", "tokens/s", "plain DDP", "ratio", "plain DeepSpeed", "ratio")
    for row in rows:
        numbers = [f"{row['ours']:,.0f}", f"{row['plain']:,.0f}", f"{row['ratio']:.3f}"]
        numbers += [f"{row['deepspeed']:,.0f}", f"{row['deepspeed_ratio']:.3f}"] if "deepspeed" in row else ["", ""]
        table.add_row(row["mode"], str(row["workers"]), *numbers)
    return table


def main() -> int:
    """Measure every mode; 1 if one misses the target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    rows = [row_of(mode, workers) for mode, workers in ROWS]
    plain = next(row["plain"] for row in rows if (row["mode"], row["workers"]) == ("ddp", 2))
    ours = independent_tokens_per_second(2)
    rows.append({"mode": "independent", "workers": 2, "ours": ours, "plain": plain, "ratio": ours / plain})
    Console().print(table_of(rows))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return int(any(row.get("deepspeed_ratio", row["ratio"]) < TARGET for row in rows))


if __name__ == "__main__":
    sys.exit(main())
