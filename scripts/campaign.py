"""Does anything get lost, differ in silence, or run a stranger's code, whatever happens to a training?

Kills runs, breaks each call of a save, cuts the power, damages files, fills disks, fuzzes readers and feeds every
command bad input and strangers' brains; judges each case against an undisturbed run. Every case is remembered:
interrupt it, start it again, it goes on; results of other code than the present one do not count.
Needs Linux, root (mounts), strace and gcc for some kinds, and `pip install -e ".[dev]"`.

    python scripts/campaign.py                            # everything, hours on two cores
    python scripts/campaign.py --only kill --count 5      # five cases, spread over the kind
    python scripts/campaign.py --only damage,input --fresh
    python scripts/campaign.py --report-only
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in the processes under test
from rich.console import Console

from faults import bad_input, damage, fuzz, kill, power, save_faults, surroundings
from faults.bench import Bench
from faults.records import HELD, MISSED, Case, Judged, Outcome, Store, code_id
from faults.report import summarize, table, write

ROOT = Path(__file__).resolve().parents[1]
KINDS: dict[str, ModuleType] = {
    part.KIND: part for part in (kill, save_faults, power, damage, surroundings, fuzz, bad_input)
}


def main() -> int:
    """Run what is missing, then report what there is; 1 if something did not hold."""
    args = _parser().parse_args()
    kinds = tuple(args.only.split(",")) if args.only else tuple(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        _parser().error(f"--only: no {', '.join(unknown)}; there are {', '.join(KINDS)}")
    console = Console(highlight=False)
    store = Store.open(args.results, code_id(ROOT))
    if args.fresh:
        store.forget(kinds)
    failed: list[str] = []
    if not args.report_only:
        try:
            failed = run_all(kinds, store, args, console)
        except KeyboardInterrupt:
            console.print("Interrupted: the same command goes on from here.")
            return 130
    records = list(store.records.values())
    rows = summarize(records, tuple(KINDS), store.code)
    console.print(table(rows))
    command = shlex.join(["python", *(part for part in sys.argv if part not in ("--report-only", "--fresh"))])
    write(records, tuple(KINDS), store.code, command, args.json)
    console.print(f"Written: {args.json} and {args.json.with_suffix('.md').name} beside it")
    if failed:
        console.print(f"{len(failed)} cases could not be judged and will be tried again next time.", style="red")
    return 1 if failed or any(row["failed"] for row in rows) else 0


def run_all(kinds: tuple[str, ...], store: Store, args: argparse.Namespace, console: Console) -> list[str]:
    """Run the cases that are missing in a few threads; returns those that could not be judged, which are not stored."""
    failed: list[str] = []
    bench = Bench(args.work.resolve() / store.code)
    for kind in kinds:
        planned = spread(KINDS[kind].cases(args.seed, bench), args.count)
        missing = [case for case in planned if case not in store.records]
        console.print(f"{kind}: {len(missing)} of {len(planned)} cases to do")
        waiting, running = iter(missing), dict[Future[tuple[Outcome, float]], Case]()
        with ThreadPoolExecutor(args.jobs) as pool:
            while True:
                for case in islice(waiting, args.jobs - len(running)):
                    running[pool.submit(run_case, case, bench)] = case
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    case = running.pop(future)
                    if (error := future.exception()) is not None:
                        failed.append(f"{case.kind} {case.name}: {error!r}")
                        console.print(f"{failed[-1]}: not judged", style="red", markup=False, soft_wrap=True)
                    else:
                        _say(console, store.add(case, *future.result()))
    return failed


def run_case(case: Case, bench: Bench) -> tuple[Outcome, float]:
    """Run and judge one case; how long it took, in seconds."""
    begun = time.perf_counter()
    try:
        outcome: Outcome = KINDS[case.kind].run(case, bench)
    except Judged as judged:
        outcome = judged.outcome
    if outcome.verdict in (HELD, MISSED):
        bench.clear(f"{case.kind}-{case.name}")
    return outcome, time.perf_counter() - begun


def spread(cases: list[Case], count: int | None) -> list[Case]:
    """At most `count` of the cases, evenly over the list."""
    if count is None or count >= len(cases):
        return cases
    return [cases[(2 * i + 1) * len(cases) // (2 * count)] for i in range(count)]


def _say(console: Console, record: dict[str, object]) -> None:
    style = None if record["verdict"] in (HELD, MISSED) else "red"
    text = f"{record['kind']} {record['name']}: {record['verdict']} ({record['seconds']} s) {record['detail']}"
    console.print(text, style=style, markup=False, soft_wrap=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--only", metavar="KIND", help=f"which kinds, comma-separated: {','.join(KINDS)}")
    add("--count", type=int, help="at most so many cases of each kind, spread over it")
    add("--seed", type=int, default=0, help="of all that is drawn [0]")
    add("--jobs", type=int, default=2, help="cases at a time [2]")
    add("--fresh", action="store_true", help="forget the results of the chosen kinds first")
    add("--report-only", action="store_true", help="run nothing")
    add("--work", type=Path, default=ROOT / "build" / "campaign", help="where the brains are made and harmed")
    add("--results", type=Path, default=ROOT / "build" / "campaign.jsonl", help="the file that remembers the cases")
    add("--json", type=Path, default=ROOT / "docs" / "benchmarks" / "campaign.json", help="where the summary goes")
    return parser


if __name__ == "__main__":
    sys.exit(main())
