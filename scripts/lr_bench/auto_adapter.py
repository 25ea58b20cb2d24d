"""The one place where the benchmark calls the public API of profile `auto`."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import Any

from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig, RunError, roles_of
from aios.auto_lr.loop.snapshot import Snapshot
from lr_bench.disturbances import NONE, disturbed, kick_of
from lr_bench.methods import Trace
from lr_bench.problems.problem import Problem
from lr_bench.workloads import Workload


def run_auto(workload: Workload, problem: Problem, lr: float, steps: int, trouble: str = NONE) -> Trace:
    """Train for `steps` steps, search included, from `lr`, with `trouble` in the middle."""
    optimizers = workload.optimizers(problem.model, lr)
    events: list[dict[str, Any]] = []
    # The search counts: peers get the same sum of steps.
    config = AutoLRConfig(count_search=True)
    auto = AutoLR(problem.model, optimizers, steps, config, events.append, use_moe=workload.moe)
    begun = time.perf_counter()
    auto.search(problem.loss)
    trace = Trace()
    _charge(trace, auto.step_count, begun)
    middle = steps // 2
    kick, struck = kick_of(trouble, middle), False
    try:
        while not auto.finished:
            if not struck and auto.step_count >= middle:
                problem, struck = disturbed(problem, trouble, 0), True
            if kick is not None and auto.step_count == kick[0] and auto.control and auto.control.scheduler:
                auto.control.scheduler.current_lr *= kick[1]
            loss = problem.loss(auto.batch)
            loss.backward()
            trace.losses.append(float(loss.detach()))
            begun = time.perf_counter()
            trace.lrs.append(auto.step(loss))
            if tried := auto.step_count - len(trace.losses):
                _charge(trace, tried, begun)
    except RunError as error:
        trace.stopped = str(error)
    finds = [event for event in events if event["event"] in ("adaptive_lr_climb", "adaptive_lr_race")]
    trace.found_lr = _of_most_weights(problem.model, events, finds[-1]["lr"]) if finds else None
    trace.search_steps = auto.search_steps
    trace.extra_bytes = Snapshot(auto.model, optimizers).bytes  # as large as the one kept for a rewind
    return trace


def _of_most_weights(model: nn.Module, events: list[dict[str, Any]], lr: float | None) -> float | None:
    """Where roles have rates of their own, that of most of the weights: what a single rate compares to."""
    factors = {event["role"]: event["factor"] for event in events if event["event"] == "adaptive_lr_roles"}
    sizes: Counter[float] = Counter()
    for (_, role), weight in zip(roles_of(model).items(), model.parameters(), strict=True):
        sizes[factors.get(role, 1.0)] += weight.numel()
    return None if lr is None else lr * sizes.most_common(1)[0][0]


def _charge(trace: Trace, steps: int, begun: float) -> None:
    """Enter steps that a race took; they have no loss to show."""
    trace.search_seconds += time.perf_counter() - begun
    trace.losses += [math.nan] * steps
    trace.lrs += [math.nan] * steps
