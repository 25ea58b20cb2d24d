"""How each method of the benchmark sets the learning rate: the peers at their documented use, and `rules`.

Every method sees the same model, batches, betas, weight decay and clipping, every peer the same warm-up (Prodigy:
none); only what it does to the learning rate differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from mechanic_pytorch import mechanize
from prodigyopt import Prodigy
from schedulefree import AdamWScheduleFree, SGDScheduleFree
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR

from aios.auto_lr.loop.weights import trainable
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler
from lr_bench.optimizers import WEIGHT_DECAY, joined
from lr_bench.problems.problem import Problem
from lr_bench.workloads import Workload

BETAS = (0.9, 0.95)
"""Of the peers that bring an AdamW of their own."""
CLIP_NORM = 1.0
PEER_WARMUP = 0.05
"""Linear warm-up of every peer but Prodigy, as a part of the run."""
RULES_WARMUP = 0.1
"""The trainer's default warm-up."""
WSD_DECAY = 0.2
"""Part of a WSD run that falls to zero (Hägele et al., arXiv 2405.18392)."""
PLATEAU_CHECKS = 50
"""How often ReduceLROnPlateau sees the mean training loss in a run."""


@dataclass
class Trace:
    """What a run leaves behind, one entry per step."""

    losses: list[float] = field(default_factory=list)
    """Training losses, step by step; NaN where there is none to show (search, disturbed batches)."""
    lrs: list[float] = field(default_factory=list)
    """Learning rate of each of them."""
    found_lr: float | None = None
    """The rate that a search has found."""
    search_steps: int = 0
    """Steps that a search took and that trained nothing, counted in the run's."""
    search_seconds: float = 0.0
    """Time spent on the search."""
    extra_bytes: int = 0
    """Memory held for snapshots."""
    stopped: str = ""
    """Why the run ended before its time, if it did; it then counts as diverged."""


class Driver:
    """Sets the learning rate of one run; this one leaves it alone."""

    skips_non_finite = False
    """Whether an update with a non-finite loss or gradient is left out."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def before(self, step: int) -> None:
        """Called before optimizer step `step`, from 0."""

    def after(self, step: int, loss: float) -> None:
        """Called after it, with its training loss."""

    def kick(self, factor: float) -> None:
        """Multiply the learning rate from now on: the disturbance of a wrong setting."""
        self.set_lr(self.lr * factor)

    def finish(self) -> None:
        """Called once before the evaluation."""

    @property
    def lr(self) -> float:
        """The learning rate in force."""
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr(self, lr: float) -> None:
        """Write `lr` into every param group."""
        for group in self.optimizer.param_groups:
            group["lr"] = lr


def train(problem: Problem, driver: Driver, steps: int, kick: tuple[int, float] | None = None) -> Trace:
    """Train for `steps` optimizer steps; `kick` is (step, factor) of a learning rate gone wrong."""
    trace = Trace()
    weights = trainable(problem.model.parameters())
    for step in range(steps):
        driver.before(step)
        if kick is not None and step == kick[0]:
            driver.kick(kick[1])
        loss = problem.loss(step)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(weights, CLIP_NORM)
        value = float(loss.detach())
        if not driver.skips_non_finite or math.isfinite(value + float(norm)):
            driver.optimizer.step()
        driver.optimizer.zero_grad()
        trace.losses.append(value)
        trace.lrs.append(driver.lr)
        driver.after(step, value)
    driver.finish()
    return trace


def constant(progress: float) -> float:
    """No schedule."""
    return 1.0


def cosine(progress: float) -> float:
    """Half a cosine to zero (torch's CosineAnnealingLR with its default eta_min)."""
    return 0.5 * (1 + math.cos(math.pi * progress))


def wsd(progress: float) -> float:
    """Constant, then linear to zero over the last `WSD_DECAY` of the run."""
    return min(1.0, (1 - progress) / WSD_DECAY)


def linear(progress: float) -> float:
    """Linear to zero (arXiv 2502.15938)."""
    return 1 - progress


def warmup_steps(steps: int, part: float = PEER_WARMUP) -> int:
    """Optimizer steps of a linear warm-up."""
    return max(1, round(part * steps))


class Scheduled(Driver):
    """A schedule fixed beforehand: linear warm-up, then `shape` of the progress (0 to 1) of what remains."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, steps: int, shape: Callable[[float], float], warmup: int
    ) -> None:
        super().__init__(optimizer)
        self.base, self.steps, self.shape, self.warmup = self.lr, steps, shape, warmup

    def before(self, step: int) -> None:
        if step < self.warmup:
            self.set_lr(self.base * (step + 1) / self.warmup)
        else:
            self.set_lr(self.base * self.shape((step - self.warmup) / (self.steps - self.warmup)))

    def kick(self, factor: float) -> None:
        self.base *= factor
        super().kick(factor)


class Reactive(Driver):
    """Linear warm-up, after it a scheduler that sees a loss and writes the learning rate itself."""

    def __init__(self, optimizer: torch.optim.Optimizer, warmup: int) -> None:
        super().__init__(optimizer)
        self.base, self.warmup = self.lr, warmup

    def before(self, step: int) -> None:
        if step < self.warmup:
            self.set_lr(self.base * (step + 1) / self.warmup)

    def after(self, step: int, loss: float) -> None:
        if step >= self.warmup:
            self.observe(loss)

    def observe(self, loss: float) -> None:
        """Take the loss of one step after the warm-up."""
        raise NotImplementedError


class OnPlateau(Reactive):
    """torch's ReduceLROnPlateau with its defaults, on the mean training loss every 2 % of the run."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        super().__init__(optimizer, warmup_steps(steps))
        self.scheduler = ReduceLROnPlateau(optimizer)
        self.every, self.losses = max(1, steps // PLATEAU_CHECKS), list[float]()

    def observe(self, loss: float) -> None:
        self.losses.append(loss)
        if len(self.losses) == self.every:
            self.scheduler.step(sum(self.losses) / self.every)
            self.losses = []


class Greedy(Reactive):
    """transformers' GreedyLR, smoothed, with bounds that suit the learning rate; it sees every step's loss."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        super().__init__(optimizer, warmup_steps(steps))
        self.scheduler = GreedyLR(optimizer, min_lr=self.lr / 100, max_lr=self.lr * 20, smooth=True)

    def observe(self, loss: float) -> None:
        self.scheduler.step(loss)


class Rules(Reactive):
    """Our profile `rules` as the trainer uses it: its warm-up, and no update from a non-finite loss."""

    skips_non_finite = True

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        super().__init__(optimizer, warmup_steps(steps, RULES_WARMUP))
        self.scheduler = AdaptiveLRScheduler(optimizer, AdaptiveLRConfig.from_base_lr(self.lr, steps))

    def observe(self, loss: float) -> None:
        self.scheduler.step(loss)

    def kick(self, factor: float) -> None:
        self.scheduler.current_lr *= factor
        super().kick(factor)


class ScheduleFree(Driver):
    """Schedule-Free (arXiv 2405.15682), which warms up by itself and is evaluated at its average."""

    def __init__(self, optimizer: Any) -> None:
        super().__init__(optimizer)
        self.averaging = optimizer
        self.averaging.train()

    def finish(self) -> None:
        self.averaging.eval()


def schedule_free(workload: Workload, model: nn.Module, lr: float, steps: int) -> Driver:
    """The package's optimizer of the workload's family; betas and weight decay as everywhere."""
    warmup = warmup_steps(steps)
    if workload.sgd:
        return ScheduleFree(SGDScheduleFree(model.parameters(), lr=lr, momentum=0.9, warmup_steps=warmup))
    optimizer = AdamWScheduleFree(
        model.parameters(), lr=lr, betas=BETAS, weight_decay=WEIGHT_DECAY, warmup_steps=warmup
    )
    return ScheduleFree(optimizer)


def prodigy(workload: Workload, model: nn.Module, d_coef: float, steps: int) -> Driver:
    """Prodigy (arXiv 2306.06101) as its README says: lr 1, cosine, `d_coef` tuned.

    Without the warm-up of the others: it grows its step size by itself, and its README warns of one.
    """
    decay = 0.0 if workload.sgd else WEIGHT_DECAY
    optimizer = Prodigy(model.parameters(), lr=1.0, betas=BETAS, d_coef=d_coef, weight_decay=decay)
    return Scheduled(optimizer, steps, cosine, warmup=0)


def mechanic(workload: Workload, model: nn.Module, steps: int) -> Driver:
    """Mechanic (arXiv 2306.00144) around the workload's family, as its README says: base rate 1, a schedule on top."""
    trained = trainable(model.parameters())
    if workload.sgd:
        optimizer = mechanize(torch.optim.SGD)(trained, lr=1.0, momentum=0.9)
    else:
        optimizer = mechanize(torch.optim.AdamW)(trained, lr=1.0, betas=BETAS, weight_decay=WEIGHT_DECAY)
    return Scheduled(optimizer, steps, linear, warmup_steps(steps))


PRODIGY_DEFAULT = 1.0
PRODIGY_GRID = [0.1, 10**-0.5, PRODIGY_DEFAULT, 10**0.5, 10.0]
"""Values of `d_coef`, the knob its README names; `lr` stays 1."""

_SCHEDULES = {"constant": constant, "cosine": cosine, "wsd": wsd, "linear": linear}
_REACTIVE: dict[str, Callable[[torch.optim.Optimizer, int], Driver]] = {
    "plateau": OnPlateau,
    "greedy": Greedy,
    "rules": Rules,
}
PEERS = ("wsd", "cosine", "linear", "greedy", "schedulefree", "prodigy", "constant", "plateau", "mechanic")
ON_SOME = ("constant", "plateau", "mechanic")
"""Peers that are run on three workloads only."""
OURS = ("auto", "rules")
AT_FOUND = "wsd_at_found"
"""WSD at the rate that `auto` found on the seed: what the choice of the rate alone is worth."""


def driver_for(method: str, workload: Workload, model: nn.Module, lr: float, steps: int) -> Driver:
    """The driver of a method other than `auto`, ready to train `model` for `steps` from `lr`."""
    if method == "schedulefree":
        return schedule_free(workload, model, lr, steps)
    if method == "prodigy":
        return prodigy(workload, model, lr, steps)
    if method == "mechanic":
        return mechanic(workload, model, steps)
    optimizer = joined(workload.optimizers(model, lr))
    schedule = "wsd" if method == AT_FOUND else method
    if schedule in _SCHEDULES:
        return Scheduled(optimizer, steps, _SCHEDULES[schedule], warmup_steps(steps))
    return _REACTIVE[method](optimizer, steps)
