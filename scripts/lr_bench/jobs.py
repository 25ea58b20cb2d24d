"""What there is to run, in which order, and the file that remembers what has been run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lr_bench.disturbances import DISTURBANCES, NONE
from lr_bench.methods import AT_FOUND, ON_SOME, OURS, PEERS, PRODIGY_DEFAULT, PRODIGY_GRID
from lr_bench.regret import Losses, tuned_lr
from lr_bench.workloads import REPORT, WORKLOADS, Workload
from remembered import Remembered

SOME = ("gpt", "chargpt", "mnist1d_mlp_adamw_100")
"""Workloads of the peers that are run on three only."""
REFINED = 10**0.25
"""So far to both sides of the best of its grid a peer is trained, too, beyond the grid where that is its end."""


@dataclass(frozen=True)
class Job:
    """One run; equal jobs give equal results."""

    workload: str
    method: str
    lr: float
    """Starting learning rate (Prodigy: d_coef)."""
    seed: int
    steps: int
    disturbance: str = NONE


@dataclass(frozen=True)
class Settings:
    """How much of the benchmark to run."""

    workloads: tuple[str, ...] = tuple(REPORT)
    methods: tuple[str, ...] = OURS + PEERS
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    """Peers are tuned on the first; the results are reported on all."""
    steps_factor: float = 1.0
    """Length of every run, as a part of the workload's own."""
    decades: bool = False
    """Tune the peers by decades instead of half-decades and then quarter-decades."""
    disturbances: bool = False
    """Run the disturbances after the comparison they need."""

    @property
    def ours(self) -> list[str]:
        """Our methods among the chosen ones."""
        return [m for m in self.methods if m in OURS]

    @property
    def peers(self) -> list[str]:
        """The peers among the chosen ones."""
        return [m for m in self.methods if m in PEERS]

    def peers_on(self, workload: str) -> list[str]:
        """The peers that a workload is trained by."""
        return [m for m in self.peers if m not in ON_SOME or workload.removeprefix("dev_") in SOME]

    def steps(self, workload: str) -> int:
        """Optimizer steps of one run of a workload."""
        return max(20, round(self.steps_factor * WORKLOADS[workload].steps))

    def grid(self, workload: Workload, method: str) -> list[float]:
        """The settings a peer is tuned over."""
        if method == "mechanic":
            return [1.0]
        if method == "prodigy":
            return [PRODIGY_DEFAULT] if self.decades else PRODIGY_GRID
        return workload.starts if self.decades else workload.grid

    def job(self, workload: str, method: str, lr: float, seed: int, disturbance: str = NONE) -> Job:
        """The job of these settings for one run."""
        return Job(workload, method, lr, seed, self.steps(workload), disturbance)


class Store(Remembered[Job]):
    """Results of the jobs, as `run_job` gives them."""

    @classmethod
    def open(cls, path: Path) -> Store:
        """Read the results there are; a line cut off by an interruption is removed from the file."""
        return cls(path, Job)

    def forget(self, settings: Settings) -> None:
        """Drop the results of the chosen workloads and methods at these lengths, to run them again."""

        def chosen(job: Job) -> bool:
            known = job.workload in settings.workloads and job.method in settings.methods
            return known and job.seed in settings.seeds and job.steps == settings.steps(job.workload)

        self.records = {job: record for job, record in self.records.items() if not chosen(job)}
        if self.path.exists():
            lines = [json.dumps(record, allow_nan=False) + "\n" for record in self.records.values()]
            self.path.write_text("".join(lines), encoding="utf-8")

    def losses(self, settings: Settings, workload: str, disturbance: str = NONE) -> Losses:
        """Final evaluation losses by (method, LR, seed); infinite where the run diverged."""
        steps, found = settings.steps(workload), {}
        for job, record in self.records.items():
            same = (job.workload, job.steps, job.disturbance) == (workload, steps, disturbance)
            if same and job.method in (*settings.methods, AT_FOUND) and job.seed in settings.seeds:
                final = record["final"]
                found[job.method, job.lr, job.seed] = math.inf if final is None else float(final)
        return found

    def undisturbed(self, settings: Settings, workload: str, method: str) -> list[dict[str, Any]]:
        """The records of a method's undisturbed runs, from any start and of any seed."""
        wanted = (workload, method, settings.steps(workload), NONE)
        return [r for j, r in self.records.items() if (j.workload, j.method, j.steps, j.disturbance) == wanted]

    def from_start(self, settings: Settings, workload: str, method: str) -> list[dict[str, Any]]:
        """Those of them from the first start, of the seeds that are reported."""
        start, seeds = WORKLOADS[workload].starts[0], settings.seeds
        runs = self.undisturbed(settings, workload, method)
        return [run for run in runs if run["job"]["lr"] == start and run["job"]["seed"] in seeds]


def stages(settings: Settings, store: Store) -> Iterator[list[Job]]:
    """Lists of jobs not yet run, the most telling first; each list is made when the one before it is done."""
    plans = [ours_everywhere, peers_on_their_grids, peers_refined, tuned_peers_on_other_seeds, at_the_rate_found]
    if settings.disturbances:
        plans = [peers_on_their_grids, undisturbed, disturbed]
    for plan in plans:
        yield [job for job in dict.fromkeys(plan(settings, store)) if job not in store.records]


def ours_everywhere(settings: Settings, store: Store) -> Iterable[Job]:
    """`auto` from one start on every seed, and all of ours from every start on the first: where it begins should not
    matter to `auto`."""
    for seed in settings.seeds:
        for name in settings.workloads:
            starts = WORKLOADS[name].starts
            for method in settings.ours:
                if seed == settings.seeds[0]:
                    yield from (settings.job(name, method, lr, seed) for lr in starts)
                elif method == "auto":
                    yield settings.job(name, method, starts[0], seed)


def peers_on_their_grids(settings: Settings, store: Store) -> Iterable[Job]:
    """The peers over their grids, on the seed they are tuned on."""
    for name in settings.workloads:
        for method in settings.peers_on(name):
            for lr in settings.grid(WORKLOADS[name], method):
                yield settings.job(name, method, lr, settings.seeds[0])


def peers_refined(settings: Settings, store: Store) -> Iterable[Job]:
    """The peers a quarter-decade to both sides of the best of their grids."""
    for name in settings.workloads:
        losses = store.losses(settings, name)
        for method in settings.peers_on(name):
            grid = settings.grid(WORKLOADS[name], method)
            best = tuned_lr({key: loss for key, loss in losses.items() if key[1] in grid}, method, settings.seeds[0])
            if best is not None and len(grid) > 1 and not settings.decades:
                for factor in (1 / REFINED, REFINED):
                    yield settings.job(name, method, best * factor, settings.seeds[0])


def at_the_rate_found(settings: Settings, store: Store) -> Iterable[Job]:
    """WSD at the rate that `auto` found, seed by seed."""
    for name in settings.workloads:
        for seed in settings.seeds:
            record = store.records.get(settings.job(name, "auto", WORKLOADS[name].starts[0], seed))
            if record is not None and record.get("found_lr") is not None:
                yield settings.job(name, AT_FOUND, record["found_lr"], seed)


def tuned_peers_on_other_seeds(settings: Settings, store: Store) -> Iterable[Job]:
    """Each peer at the setting that was best on the first seed, on the others."""
    for name in settings.workloads:
        losses = store.losses(settings, name)
        for method in settings.peers_on(name):
            if (lr := tuned_lr(losses, method, settings.seeds[0])) is not None:
                for seed in settings.seeds[1:]:
                    yield settings.job(name, method, lr, seed)


def fair_lr(settings: Settings, store: Store, name: str, method: str) -> float | None:
    """Where a method begins when it is disturbed: peers where they are best, ours in the middle of the starts."""
    if method in OURS:
        starts = WORKLOADS[name].starts
        return starts[len(starts) // 2]
    return tuned_lr(store.losses(settings, name), method, settings.seeds[0])


def undisturbed(settings: Settings, store: Store) -> Iterable[Job]:
    """The runs that the disturbed ones are compared with."""
    return _at_fair_lr(settings, store, (NONE,))


def disturbed(settings: Settings, store: Store) -> Iterable[Job]:
    """Every disturbance for every method."""
    return _at_fair_lr(settings, store, DISTURBANCES)


def _at_fair_lr(settings: Settings, store: Store, kinds: tuple[str, ...]) -> Iterable[Job]:
    for seed in settings.seeds:
        for name in settings.workloads:
            for kind in kinds:
                for method in settings.methods:
                    if (lr := fair_lr(settings, store, name, method)) is not None:
                        yield settings.job(name, method, lr, seed, kind)
