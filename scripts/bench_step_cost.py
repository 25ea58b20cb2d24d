"""Cost of one `step()` of the adaptive scheduler beside the schedulers people use today.

Microseconds per `step(loss)` with a Python float, amortised over whole windows of 50, against torch's
ReduceLROnPlateau and transformers' GreedyLR with their defaults. Repeats are interleaved, so a noisy machine
disturbs all three alike. The first half of `bench_overhead.py`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from rich.table import Table
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler

OURS = "AdaptiveLRScheduler"
Step = Callable[[float], object]


def _optimizer() -> torch.optim.Optimizer:
    return torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)


def _schedulers() -> dict[str, Step]:
    config = AdaptiveLRConfig.from_base_lr(1e-3, steps=1000)
    return {
        OURS: AdaptiveLRScheduler(_optimizer(), config).step,
        "ReduceLROnPlateau": ReduceLROnPlateau(_optimizer()).step,
        "GreedyLR": GreedyLR(_optimizer(), min_lr=1e-5).step,
    }


def _microseconds(step: Step, losses: list[float]) -> float:
    start = time.perf_counter()
    for loss in losses:
        step(loss)
    return 1e6 * (time.perf_counter() - start) / len(losses)


def measure(steps: int = 5000, repeats: int = 15) -> dict[str, float]:
    """Median microseconds per step of each scheduler, and `ratio`: ours over the faster of the others.

    `steps` per repeat are rounded to whole windows of 50; the losses fall slowly with a little noise. Every
    repeat starts with fresh schedulers, so none idles at its floor.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(max(1, steps // 50) * 50, generator=generator).tolist()
    losses = [5.0 * 0.9998**i + 0.05 * n for i, n in enumerate(noise)]
    times: dict[str, list[float]] = {name: [] for name in _schedulers()}
    for _ in range(repeats):
        for name, step in _schedulers().items():
            times[name].append(_microseconds(step, losses))
    result = {name: statistics.median(values) for name, values in times.items()}
    result["ratio"] = result[OURS] / min(value for name, value in result.items() if name != OURS)
    return result


def cost_table(result: dict[str, float]) -> Table:
    """What `measure` returned, as a table."""
    table = Table("scheduler", "microseconds per step", "ours / this", title="(a) one scheduler step")
    for name, value in result.items():
        if name != "ratio":
            table.add_row(name, f"{value:.2f}", f"{result[OURS] / value:.2f}")
    return table
