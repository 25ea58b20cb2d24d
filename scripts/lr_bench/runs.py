"""Runs jobs: one by one in a worker, or all of them in a few processes."""

from __future__ import annotations

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice, pairwise
from typing import Any

import torch

from lr_bench.auto_adapter import run_auto
from lr_bench.disturbances import blank_disturbed, disturbed, kick_of
from lr_bench.jobs import Job, Settings, Store, stages
from lr_bench.methods import driver_for, train
from lr_bench.workloads import WORKLOADS

CURVE_POINTS = 200


def thin(values: list[float], points: int = CURVE_POINTS) -> list[float | None]:
    """Means of the finite values of at most `points` equal parts, None for a part without any."""
    parts = min(points, len(values))
    edges = [round(i * len(values) / parts) for i in range(parts + 1)] if parts else [0]
    chunks = [[v for v in values[a:b] if math.isfinite(v)] for a, b in pairwise(edges)]
    return [float(f"{sum(chunk) / len(chunk):.5g}") if chunk else None for chunk in chunks]


def run_job(job: Job) -> dict[str, Any]:
    """One run from its first step to its evaluation; `final` is None if it diverged or was stopped."""
    torch.set_num_threads(1)  # one per process: the processes share the cores
    workload, middle = WORKLOADS[job.workload], job.steps // 2
    problem = workload.build(job.seed)
    begun = time.perf_counter()
    if job.method == "auto":
        trace = run_auto(workload, problem, job.lr, job.steps, job.disturbance)
    else:
        driver = driver_for(job.method, workload, problem.model, job.lr, job.steps)
        with_trouble = disturbed(problem, job.disturbance, middle)
        trace = train(with_trouble, driver, job.steps, kick_of(job.disturbance, middle))
    seconds = time.perf_counter() - begun
    final = disturbed(problem, job.disturbance, middle).evaluate()
    blank_disturbed(trace, job.disturbance, middle)
    return {
        "final": final if math.isfinite(final) and not trace.stopped else None,
        "stopped": trace.stopped,
        "seconds": round(seconds, 3),
        "found_lr": trace.found_lr,
        "search_steps": trace.search_steps,
        "search_seconds": round(trace.search_seconds, 3),
        "extra_bytes": trace.extra_bytes,
        "train_loss": thin(trace.losses),
        "lr": thin(trace.lrs),
    }


def run_all(
    settings: Settings, store: Store, workers: int, deadline: float, say: Callable[[str], None]
) -> list[tuple[Job, BaseException]]:
    """Run what is missing until `deadline` (time.monotonic()); return the jobs that failed, which are not stored."""
    failed: list[tuple[Job, BaseException]] = []
    context = multiprocessing.get_context("spawn")  # a forked torch may hang in its thread pool
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        for jobs in stages(settings, store):
            say(f"{len(jobs)} runs to do in this stage")
            for number, (job, future) in enumerate(_completed(pool, jobs, workers, deadline), start=1):
                if (error := future.exception()) is not None:
                    failed.append((job, error))
                    say(f"{number}/{len(jobs)} {_name(job)}: failed: {error!r}")
                    continue
                store.add(job, future.result())
                final, seconds = store.records[job]["final"], store.records[job]["seconds"]
                loss = "diverged" if final is None else f"{final:.4f}"
                say(f"{number}/{len(jobs)} {_name(job)}: {loss} ({seconds:.1f} s)")
    return failed


def _completed(
    pool: ProcessPoolExecutor, jobs: list[Job], workers: int, deadline: float
) -> Iterator[tuple[Job, Future[dict[str, Any]]]]:
    """Jobs as they complete; no more are submitted than can run, so that the deadline can hold the rest back."""
    waiting, running = iter(jobs), dict[Future[dict[str, Any]], Job]()
    while True:
        if time.monotonic() < deadline:
            for job in islice(waiting, workers - len(running)):
                running[pool.submit(run_job, job)] = job
        if not running:
            return
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            yield running.pop(future), future


def _name(job: Job) -> str:
    trouble = "" if job.disturbance == "none" else f", {job.disturbance}"
    return f"{job.workload} {job.method} from {job.lr:.3g}, seed {job.seed}{trouble}"
