"""How long a picture of a long run takes to follow it: redraw time, memory, and the lag of the log's tail.

`python scripts/bench_gui.py [--records 1000,100000,1000000] [--json docs/benchmarks/gui.json]` writes logs of those
lengths, follows each in a process of its own with the code of the window and the command line, on an off-screen
canvas of 1280x800 pixels, and prints a table. Exit code 1 when a redraw takes 50 ms of processor time or more, or a
line a second until it is on show.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

REDRAW_MS, LAG_SECONDS = 50.0, 1.0
REDRAWS, LINES = 60, 12
POLL_SECONDS = 0.2
"""The window looks at the log, and redraws, at most this often."""


@dataclass(frozen=True)
class Measured:
    """One log."""

    records: int
    """Records in it."""
    log_mb: float
    """Its size in MB (10^6 bytes)."""
    digest_s: float
    """Seconds to read and digest it from its beginning."""
    memory_mb: float
    """What reading and drawing it added to the peak memory of the process."""
    redraw_ms: float
    """Median milliseconds of a redraw: one new record taken in, curves refilled, canvas brought up to date."""
    redraw_cpu_ms: float
    """Processor time of the same, which other processes do not lengthen."""
    redraw_cpu_p95_ms: float
    """The same, 95th percentile."""
    frame_cpu_ms: float
    """Median processor time when axes and legends are drawn anew too, as after a change of the window's size."""
    zoomed_cpu_ms: float
    """Median processor time of a redraw while the last tenth of the run is in view."""
    crosshair_cpu_ms: float
    """Median processor time of finding the values at the mouse; its lines are drawn over the picture by Tk."""
    lag_s: float
    """Longest time from a line being written to its point being on the canvas, polled every 0.2 s."""

    @property
    def passed(self) -> bool:
        """Whether the targets are met."""
        redraws = max(self.redraw_cpu_p95_ms, self.zoomed_cpu_ms + self.crosshair_cpu_ms)
        return redraws < REDRAW_MS and self.lag_s < LAG_SECONDS


def records_of_a_run(count: int) -> Iterator[dict[str, Any]]:
    """`run_start`, then `count` training steps with an adjustment every 1/200 and an evaluation every 1/50 of them."""
    noise, lr = random.Random(0), 1e-3
    config = {"steps": 2 * count, "brain_name": "bench"}
    yield {"event": "run_start", "ts": 0.0, "step": 0, "run_id": "bench", "config": config, "device": "cpu"}
    for step in range(1, count + 1):
        yield training_step(step, 2 + 5 / (1 + 20 * step / count) + noise.gauss(0, 0.2), lr)
        if step % max(1, count // 200) == 0:
            old, lr = lr, lr * noise.choice((1.1, 1.1, 0.7))
            yield {
                "event": "adaptive_lr_adjustment", "ts": float(step), "step": step, "old_lr": old, "new_lr": lr,
                "decision": "increase" if lr > old else "decrease", "reason": "improving (3.00% per window, cv 0.02)",
                "metrics": {"loss_avg": 3.0, "improvement_rate": 0.03, "cv": 0.02, "trend": -0.01},
            }  # fmt: skip
        if step % max(1, count // 50) == 0:
            yield {"event": "eval", "ts": float(step), "step": step, "loss": 2.5, "ppl": 12.2, "tokens": 8000}


def training_step(step: int, loss: float, lr: float) -> dict[str, Any]:
    """A `train` record with the keys that the trainer writes."""
    return {
        "event": "train", "ts": float(step), "step": step, "loss": loss + 0.1, "ce": loss, "lr": lr,
        "grad_norm": 0.9, "tokens_per_sec": 8123.4567, "step_time_s": 0.1234567, "used_segments": 2.0,
    }  # fmt: skip


def append(path: Path, record: dict[str, Any]) -> None:
    """Write one line as the trainer does."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(record) + "\n")


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def measure(path: Path, count: int) -> Measured:
    """Follow the log at `path`, which holds `count` training steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from aios.run_view.drawing import LIGHT, draw_run
    from aios.run_view.pointing import values_at
    from aios.run_view.reading import FollowedRun
    from aios.run_view.view import View

    figure = Figure(figsize=(12.8, 8.0), dpi=100)
    canvas, size, before = FigureCanvasAgg(figure), path.stat().st_size, peak_mb()
    run, began = FollowedRun(path), time.perf_counter()
    while not run.follower.at_end:
        run.refresh()
    digest = time.perf_counter() - began
    drawn = draw_run(figure, [("bench", run.history)], LIGHT)
    drawn.redraw()

    def show_new() -> int:
        run.refresh()
        drawn.update()
        drawn.redraw()
        return run.history.step

    redraws, frames = [], []
    for step in range(count + 1, count + 1 + REDRAWS):
        append(path, training_step(step, 2.2, 1e-3))
        redraws.append(timed(show_new))
        assert run.history.step == step
    for _ in range(REDRAWS // 4):
        drawn.fit()
        frames.append(timed(canvas.draw))
    drawn.look_at(View(steps=(0.9 * count, float(count + REDRAWS))))
    zoomed = []
    for step in range(count + 1 + REDRAWS, count + 1 + REDRAWS + REDRAWS // 4):
        append(path, training_step(step, 2.2, 1e-3))
        zoomed.append(timed(show_new))
    pointed = [timed(lambda: [values_at(c, 0.95 * count) for c in drawn.curves()]) for _ in range(REDRAWS)]
    drawn.look_at(View())
    drawn.redraw()
    lag = longest_lag(path, count + 1 + REDRAWS + REDRAWS // 4, show_new)
    wall, cpu = [w for w, _ in redraws], [c for _, c in redraws]
    return Measured(
        count, size / 1e6, digest, peak_mb() - before, statistics.median(wall), statistics.median(cpu),
        statistics.quantiles(cpu, n=20)[-1], statistics.median(c for _, c in frames),
        statistics.median(c for _, c in zoomed), statistics.median(c for _, c in pointed), lag,
    )  # fmt: skip


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """(milliseconds, milliseconds of processor time) that `action()` takes."""
    wall, cpu = time.perf_counter(), time.thread_time()
    action()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.thread_time() - cpu)


def longest_lag(path: Path, first: int, show: Callable[[], int]) -> float:
    """Let another thread write `LINES` lines while `show()` is polled; it returns the newest step on show."""
    written: dict[int, float] = {}

    def write() -> None:
        for step in range(first, first + LINES):
            time.sleep(0.15)
            written[step] = time.perf_counter()
            append(path, training_step(step, 2.2, 1e-3))

    writer = threading.Thread(target=write)
    writer.start()
    lags, shown = [], first - 1
    while shown < first + LINES - 1:
        time.sleep(POLL_SECONDS)
        newest, now = show(), time.perf_counter()
        lags += [now - written[step] for step in range(shown + 1, newest + 1)]
        shown = newest
    writer.join()
    return max(lags)


def write_log(path: Path, count: int) -> None:
    """A log of `count` training steps."""
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(record) + "\n" for record in records_of_a_run(count))


def main() -> int:
    """Measure each length, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", default="1000,100000,1000000", help="lengths of the logs, with commas between")
    parser.add_argument("--json", type=Path, default=None, help="where the numbers go, too")
    args = parser.parse_args()
    results = []
    print("   records   log MB  digest s  memory MB  redraw ms  cpu ms  cpu p95  frame cpu  zoomed  crosshair  lag s")
    for count in (int(part) for part in args.records.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "metrics.jsonl"
            write_log(log, count)
            with multiprocessing.get_context("spawn").Pool(1) as fresh:  # so that peaks of memory do not mix
                result: Measured = fresh.apply(measure, (log, count))
        results.append(result)
        print(
            f"{result.records:10,} {result.log_mb:8.1f} {result.digest_s:9.1f} {result.memory_mb:10.1f} "
            f"{result.redraw_ms:10.1f} {result.redraw_cpu_ms:7.1f} {result.redraw_cpu_p95_ms:8.1f} "
            f"{result.frame_cpu_ms:10.1f} {result.zoomed_cpu_ms:7.1f} {result.crosshair_cpu_ms:10.2f} "
            f"{result.lag_s:6.2f}"
        )
    load = os.getloadavg()[0] / (os.cpu_count() or 1)
    passed = all(result.passed for result in results)
    print(f"Targets (redraw under {REDRAW_MS:g} ms, lag under {LAG_SECONDS:g} s): {'met' if passed else 'MISSED'}")
    print(f"The machine was shared by {load:.1f} busy processes per core.")
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(
            json.dumps({"load_per_core": load, "logs": [asdict(result) for result in results]}, indent=2) + "\n"
        )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
