"""Is the learning rate that nobody chose as good as the one that somebody tuned?

Trains small models of several kinds by our profiles from every starting learning rate and by the peers over
their grids; reports how far each ends behind the best tuned peer. Every run is remembered: interrupt it, start
it again, it goes on. Needs `pip install -e ".[bench]"`.

    python scripts/bench_lr.py                     # everything, about five hours on two cores
    python scripts/bench_lr.py --quick             # about a quarter of an hour
    python scripts/bench_lr.py --disturbances --workloads gpt,digits_sgd
    python scripts/bench_lr.py --methods auto --fresh --minutes 10
    python scripts/bench_lr.py --development --seeds 100 101   # what rules and constants were chosen on
    python scripts/bench_lr.py --report-only
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the workers

from rich.console import Console

from lr_bench.figure import draw
from lr_bench.jobs import Settings, Store
from lr_bench.methods import OURS, PEERS
from lr_bench.report import reporting, summary, tables
from lr_bench.runs import run_all
from lr_bench.workloads import DEVELOPMENT, REPORT, WORKLOADS

ROOT = Path(__file__).resolve().parents[1]
QUICK_FACTOR = 0.4


def main() -> int:
    """Run what is missing, then report what there is; 1 if a run failed."""
    parser = _parser()
    args = parser.parse_args()
    settings = settings_of(args, parser)
    console = Console()
    store = Store.open(args.results)
    failed = []
    if not args.report_only:
        if args.fresh:
            store.forget(settings)
        deadline = time.monotonic() + 60 * args.minutes
        try:
            failed = run_all(settings, store, args.workers, deadline, partial(console.print, highlight=False))
        except KeyboardInterrupt:
            console.print("Interrupted: the same command goes on from here.")
            return 130
    report(reporting(settings, store), store, args.out, console)
    for problem, count in Counter(f"{job.method}: {error!r}" for job, error in failed).items():
        console.print(f"{count} runs failed and will be tried again next time: {problem}", style="red")
    return 1 if failed else 0


def report(settings: Settings, store: Store, out: Path, console: Console) -> None:
    """Print the tables; write them as Markdown, the figures as JSON and the picture as PNG into `out`."""
    if not settings.workloads:
        console.print("No results yet.")
        return
    command = shlex.join(["python", *(part for part in sys.argv if part not in ("--report-only", "--fresh"))])
    seeds = ", ".join(map(str, settings.seeds))
    text = [
        "# The learning rate benchmark",
        "",
        f"Made by `{command}`. Seeds {seeds}; peers tuned on the first. Losses: means over the seeds that were run",
        "(peers: all seeds where tuned, else the first). Prodigy takes no learning rate; its `d_coef` was tuned.",
        "",
        "![final loss by learning rate, given or found](lr.png)",
        "",
    ]
    for table in tables(settings, store):
        console.print(table.rich())
        text.append(table.markdown())
    out.mkdir(parents=True, exist_ok=True)
    (out / "lr.md").write_text("\n".join(text), encoding="utf-8")
    figures = json.dumps({"command": command, **summary(settings, store)}, indent=1, allow_nan=False)
    (out / "lr.json").write_text(figures + "\n", encoding="utf-8")
    draw(settings, store, out / "lr.png")
    console.print(f"Written: lr.md, lr.json and lr.png in {out}", highlight=False)


def settings_of(args: argparse.Namespace, parser: argparse.ArgumentParser) -> Settings:
    """What the command line asks for; an unknown name ends the program."""
    chosen = {}
    usual = {"workloads": tuple(DEVELOPMENT if args.development else REPORT), "methods": OURS + PEERS}
    for key, known in (("workloads", tuple(WORKLOADS)), ("methods", OURS + PEERS)):
        chosen[key] = tuple(getattr(args, key).split(",")) if getattr(args, key) else usual[key]
        if unknown := [name for name in chosen[key] if name not in known]:
            parser.error(f"--{key}: no {', '.join(unknown)}; there are {', '.join(known)}")
    seeds = tuple(args.seeds or ((0,) if args.quick else range(5)))
    factor = args.steps_factor or (QUICK_FACTOR if args.quick else 1.0)
    return Settings(
        chosen["workloads"], chosen["methods"], seeds, factor, decades=args.quick, disturbances=args.disturbances
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--quick", action="store_true", help="shorter runs, one seed, peers tuned by decades")
    add("--workloads", help=f"which, comma-separated: {','.join(WORKLOADS)}")
    add("--development", action="store_true", help="the workloads that rules and constants were chosen on")
    add("--methods", help=f"which to run (the report has all), comma-separated: {','.join(OURS + PEERS)}")
    add("--seeds", type=int, nargs="+", help="which; peers are tuned on the first [0 1 2 3 4]")
    add("--steps-factor", type=float, help="length of the runs as a part of their own [1; with --quick 0.4]")
    add("--disturbances", action="store_true", help="make trouble in mid-run instead of comparing starts")
    add("--minutes", type=float, default=math.inf, help="begin no run after so many minutes")
    add("--workers", type=int, default=2, help="processes, one thread each [2]")
    add("--fresh", action="store_true", help="forget the results of the chosen workloads and methods first")
    add("--report-only", action="store_true", help="run nothing")
    add("--results", type=Path, default=ROOT / "build" / "bench_lr.jsonl", help="the file that remembers the runs")
    add("--out", type=Path, default=ROOT / "docs" / "benchmarks", help="where the report goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
