"""What there is to run, and the file that remembers what has been run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from integration_bench.loops import by_accelerate, by_lightning, by_torch
from integration_bench.methods import (
    COSINE,
    COSINE_RATES,
    DEFAULT,
    FINDER,
    FREE_LR,
    GREEDY,
    GREEDY_LR,
    OURS,
    SCHEDULE_FREE,
    Train,
)
from integration_bench.problem import STEPS, held_out_loss, model_for, task_data
from integration_bench.report import Row
from integration_bench.trainers import by_transformers, by_trl
from remembered import Remembered

FRAMEWORKS: dict[str, Train] = {
    "transformers": by_transformers,
    "trl": by_trl,
    "lightning": by_lightning,
    "accelerate": by_accelerate,
    "torch": by_torch,
}
OTHERS = {"transformers": (GREEDY, SCHEDULE_FREE), "trl": (GREEDY, SCHEDULE_FREE), "lightning": (FINDER,)}
"""What a framework offers beyond schedules that are fixed beforehand."""
_FIXED_RATES = {GREEDY: GREEDY_LR, SCHEDULE_FREE: FREE_LR}


@dataclass(frozen=True)
class Job:
    """One run; equal jobs give equal results."""

    framework: str
    task: str
    method: str
    lr: float
    """Learning rate; 0 where the method chooses it itself."""
    seed: int
    steps: int
    """Optimizer steps."""

    def run(self) -> float:
        """The held-out loss at its end, infinite where it diverged."""
        torch.set_num_threads(1)
        data, model = task_data(self.steps), model_for(self.task, self.seed)
        FRAMEWORKS[self.framework](self.method, self.lr, model, data, self.steps)
        loss = held_out_loss(model, data)
        return loss if math.isfinite(loss) else math.inf


@dataclass(frozen=True)
class Results:
    """Held-out losses in nats per byte by job; a diverged run's is null in the file."""

    runs: Remembered[Job]

    @classmethod
    def open(cls, path: Path) -> Results:
        """Read what there is; a line cut off by an interruption is removed from the file."""
        return cls(Remembered(path, Job))

    @property
    def losses(self) -> dict[Job, float]:
        """What is known, infinite where a run diverged."""
        losses = {job: record["loss"] for job, record in self.runs.records.items()}
        return {job: math.inf if loss is None else loss for job, loss in losses.items()}

    def add(self, job: Job, loss: float) -> None:
        """Remember the loss of a job."""
        self.runs.add(job, {"loss": loss if math.isfinite(loss) else None})


@dataclass(frozen=True)
class Bout:
    """A framework on a task: the runs it takes, and what they are worth."""

    framework: str
    task: str
    seeds: tuple[int, ...]
    """The cosine is tuned on the first; the results are reported on all."""
    steps_factor: float = 1.0
    """Length of every run, as a part of the task's own."""

    def job(self, method: str, lr: float, seed: int) -> Job:
        """One run of it."""
        return Job(self.framework, self.task, method, lr, seed, round(self.steps_factor * STEPS[self.task]))

    def tuning(self) -> list[Job]:
        """The runs that the cosine's rate is chosen from."""
        return [self.job(COSINE, lr, self.seeds[0]) for lr in COSINE_RATES]

    def reported(self, results: Results) -> dict[str, list[Job]]:
        """By method, one run for each seed. The tuning has to be done."""
        best = min(self.tuning(), key=results.losses.__getitem__)
        rates = {COSINE: best.lr, **_FIXED_RATES}
        methods = (DEFAULT, COSINE, *OTHERS.get(self.framework, ()), OURS)
        return {method: [self.job(method, rates.get(method, 0.0), seed) for seed in self.seeds] for method in methods}

    def complete(self, results: Results, remember: Callable[[Job], None]) -> None:
        """Have `remember` run and remember what has not been run."""
        for job in self.tuning():
            if job not in results.losses:
                remember(job)
        for jobs in self.reported(results).values():
            for job in jobs:
                if job not in results.losses:
                    remember(job)

    def rows(self, results: Results) -> list[Row]:
        """One row for each method; everything has to be done."""
        jobs = self.reported(results)
        losses = {method: [results.losses[job] for job in of] for method, of in jobs.items()}
        return [
            Row(self.framework, self.task, method, of[0].lr or None, losses[method], losses[COSINE])
            for method, of in jobs.items()
        ]
