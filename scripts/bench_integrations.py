"""Does one line of ours in a trainer end where a tuned schedule ends?

Trains a small GPT-2, from scratch on the bundled text, and by LoRA after Python's sources, under each framework: by its
default, by a cosine tuned over five rates on the first seed, by GreedyLR and Schedule-Free and the framework's own
finder where it has them, and by `AutoLR`. Ours climb in both tasks (adapters are fresh), and a climb's steps are among
the run's, so all have had equal work. Every run is remembered: interrupt it, start it again, it goes on. Needs
`pip install -e ".[bench,dev]"`.

    python scripts/bench_integrations.py                             # everything, about an hour on one core
    python scripts/bench_integrations.py --quick                     # about five minutes
    python scripts/bench_integrations.py --frameworks lightning --seeds 0
    python scripts/bench_integrations.py --report-only
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from rich.console import Console

from integration_bench.jobs import FRAMEWORKS, Bout, Job, Results
from integration_bench.methods import OURS
from integration_bench.problem import TASKS
from integration_bench.report import markdown, table

ROOT = Path(__file__).resolve().parents[1]
QUICK_FACTOR = 0.4


def main() -> int:
    """Run what is missing, then report; 1 where ours ends above the tuned cosine's mean."""
    parser = _parser()
    args = parser.parse_args()
    frameworks = args.frameworks.split(",")
    if unknown := [name for name in frameworks if name not in FRAMEWORKS]:
        parser.error(f"--frameworks: no {', '.join(unknown)}; there are {', '.join(FRAMEWORKS)}")
    seeds, factor = tuple(args.seeds or ((0,) if args.quick else (0, 1, 2))), QUICK_FACTOR if args.quick else 1.0
    console, results = Console(), Results.open(args.results)
    bouts = [Bout(framework, task, seeds, factor) for framework in frameworks for task in TASKS]
    if not args.report_only:
        for bout in bouts:
            bout.complete(results, partial(run_and_say, results=results, console=console))
    rows = [row for bout in bouts for row in bout.rows(results)]
    console.print(table(rows))
    command = shlex.join(["python", *(part for part in sys.argv if part != "--report-only")])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "integrations.md").write_text(markdown(rows, command, seeds), encoding="utf-8")
    told = {"command": command, "rows": [asdict(row) | {"ratio": row.ratio} for row in rows]}
    (args.out / "integrations.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return int(any(row.method == OURS and row.ratio > 1 for row in rows))


def run_and_say(job: Job, results: Results, console: Console) -> None:
    """Run a job, remember it, and print a line about it."""
    begun = time.perf_counter()
    results.add(job, job.run())
    rate = f" at {job.lr:.2g}" if job.lr else ""
    where = f"{job.framework}, {job.task}, seed {job.seed}"
    took = time.perf_counter() - begun
    console.print(f"{where}: {job.method}{rate}: {results.losses[job]:.4f} ({took:.0f} s)", highlight=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter runs, one seed")
    add("--frameworks", default=",".join(FRAMEWORKS), help="which, comma-separated [%(default)s]")
    add("--seeds", type=int, nargs="+", help="which; the cosine is tuned on the first [0 1 2; with --quick 0]")
    add("--report-only", action="store_true", help="run nothing")
    add("--results", type=Path, default=ROOT / "build" / "bench_integrations.jsonl", help="remembers the runs")
    add("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="where the report goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
