"""Regret: how much worse a run ends than the best peer that somebody has tuned. Pure functions of losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Losses = Mapping[tuple[str, float, int], float]
"""Final evaluation loss by (method, LR, seed), infinite where the run diverged."""
MEAN_TARGET, WORST_TARGET = 0.0, 0.015


@dataclass(frozen=True)
class Reference:
    """The best peer after tuning."""

    method: str
    lr: float
    by_seed: dict[int, float]
    """Its loss on every seed that all tuned peers have been run on."""


@dataclass(frozen=True)
class Regret:
    """How far a method is behind the reference, as a part of its loss; below zero where it is ahead."""

    by_lr: dict[float, float]
    """Mean over the seeds for each starting LR."""
    mean: float
    """Mean over the starting LRs."""
    worst: float
    """The worst starting LR."""
    worst_run: float
    """The worst single run, whatever its LR and seed."""

    @property
    def on_target(self) -> bool:
        """Whether mean and worst are what the project promises."""
        return self.mean <= MEAN_TARGET and self.worst <= WORST_TARGET


def tuned_lr(losses: Losses, method: str, seed: int) -> float | None:
    """The LR with the lowest loss on `seed`, None without runs; a tie goes to the lower LR."""
    runs = {lr: loss for (name, lr, of), loss in losses.items() if name == method and of == seed}
    return min(sorted(runs), key=runs.__getitem__) if runs else None


def mean_over_seeds(losses: Losses, method: str, lr: float) -> float | None:
    """Mean final loss over the seeds that were run, None without runs."""
    runs = [loss for (name, at, _), loss in losses.items() if name == method and at == lr]
    return sum(runs) / len(runs) if runs else None


def best_tuned_peer(losses: Losses, peers: Iterable[str], seeds: tuple[int, ...]) -> Reference | None:
    """The peer that is best on the mean of all seeds, each at the LR that was best for it on the first seed.

    The seeds are those on which every tuned peer was run. None before the first peer has been run.
    """
    tuned = {peer: tuned_lr(losses, peer, seeds[0]) for peer in peers}
    rates = {peer: lr for peer, lr in tuned.items() if lr is not None}
    common = [seed for seed in seeds if all((peer, lr, seed) in losses for peer, lr in rates.items())]
    if not rates or not common:
        return None
    by_seed = {peer: {seed: losses[peer, lr, seed] for seed in common} for peer, lr in rates.items()}
    best = min(by_seed, key=lambda peer: sum(by_seed[peer].values()))
    return Reference(best, rates[best], by_seed[best])


def regret(losses: Losses, reference: Reference, method: str, lrs: Iterable[float]) -> Regret | None:
    """Regret of `method` begun at each of `lrs` against the reference on the same seeds; None without runs."""
    by_lr, runs = {}, []
    for lr in lrs:
        pairs = [
            (losses[method, lr, seed], best) for seed, best in reference.by_seed.items() if (method, lr, seed) in losses
        ]
        if pairs:
            by_lr[lr] = _behind(sum(a for a, _ in pairs), sum(b for _, b in pairs))
            runs += [_behind(a, b) for a, b in pairs]
    if not by_lr:
        return None
    return Regret(by_lr, sum(by_lr.values()) / len(by_lr), max(by_lr.values()), max(runs))


def _behind(loss: float, best: float) -> float:
    return loss / best - 1 if math.isfinite(loss) else math.inf
