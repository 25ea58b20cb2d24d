"""Does it pay to try a higher rate once after the warm-up?

For problems whose rate the search finds and for others that it finds too low a rate for: how much three times the
rate gains just after the warm-up, over 16 and over 32 steps, and where the run ends with the challenge, without it, and
at the best constant rate of a grid (with the same warm-up and anneal), as means over the seeds. Prints a table, writes
JSON with --json. About half an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn

from aios.auto_lr.anneal import DEFAULT_FRACTION
from aios.auto_lr.api import AutoLR, AutoLRConfig
from aios.auto_lr.challenge import ChallengeConfig, compare
from aios.auto_lr.loop.trial import ClosureTrial, train_and_restore
from aios.auto_lr.plan import WARMUP_FRACTION
from lr_bench.methods import Scheduled, train, warmup_steps
from lr_bench.workloads import WORKLOADS, Problem, text_bytes, text_problem

SEEDS = (0, 1, 2)
LENGTHS = (16, 32)
COUNTED = AutoLRConfig(count_search=True)
WITHOUT = AutoLRConfig(count_search=True, challenge=None)
MakeOptimizer = Callable[[nn.Module, float], torch.optim.Optimizer]


class Case(NamedTuple):
    """A problem, its optimizer and the length of its run."""

    build: Callable[[int], Problem]
    optimizer: MakeOptimizer
    steps: int


class ByteLSTM(nn.Module):
    """An LSTM over bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.lstm = nn.Embedding(256, 64), nn.LSTM(64, 128, batch_first=True)
        self.head = nn.Linear(128, 256)

    def forward(self, ids: Tensor) -> Tensor:
        """Mean cross-entropy of the next byte, ids [batch, time]."""
        logits = self.head(self.lstm(self.tokens(ids[:, :-1]))[0])
        return F.cross_entropy(logits.reshape(-1, 256), ids[:, 1:].reshape(-1))


def lstm(seed: int) -> Problem:
    """An LSTM on the bundled text."""
    torch.manual_seed(seed)
    model = ByteLSTM()
    return text_problem(model, model, text_bytes(), seed, rows=16, with_change=False)


def autoencoder(seed: int) -> Problem:
    """An autoencoder of scikit-learn's digits, mean squared error."""
    torch.manual_seed(seed)
    x = torch.tensor(load_digits().images, dtype=torch.float32).reshape(-1, 64) / 16
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    sizes = ((64, 64), (64, 8), (8, 64), (64, 64))
    layers = [layer for a, b in sizes for layer in (nn.Linear(a, b), nn.ReLU() if b == 64 else nn.Identity())]
    model = nn.Sequential(*layers[:-1], nn.Sigmoid())

    def loss(index: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        rows = x[torch.randint(1400, (32,), generator=generator)]
        return F.mse_loss(model(rows), rows)

    def evaluate() -> float:
        with torch.no_grad():
            return float(F.mse_loss(model(x[1400:]), x[1400:]))

    return Problem(model, loss, evaluate)


def of_benchmark(name: str, steps: int) -> Case:
    """A workload of bench_lr.py, run longer."""
    return Case(WORKLOADS[name].build, WORKLOADS[name].optimizer, steps)


def adamw(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """torch's defaults."""
    return torch.optim.AdamW(model.parameters(), lr=lr)


def rmsprop(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    """torch's defaults."""
    return torch.optim.RMSprop(model.parameters(), lr=lr)


CASES = {
    "gpt_adamw": of_benchmark("gpt", 1200),
    "finetune_adamw": of_benchmark("finetune", 1200),
    "digits_sgd": of_benchmark("digits_sgd", 1200),
    "autoencoder_adamw": Case(autoencoder, adamw, 1200),
    "autoencoder_rmsprop": Case(autoencoder, rmsprop, 1200),
    "lstm_adamw": Case(lstm, adamw, 1200),
    "lstm_rmsprop": Case(lstm, rmsprop, 1200),
}


def auto_run(case: Case, seed: int, config: AutoLRConfig) -> dict[str, Any]:
    """A run of `auto` from 1e-4."""
    torch.set_num_threads(1)
    problem = case.build(seed)
    events: list[dict[str, Any]] = []
    auto = AutoLR(problem.model, case.optimizer(problem.model, 1e-4), case.steps, config, events.append)
    auto.search(problem.loss)
    train_to(case.steps, auto, problem)
    won = [event["won"] for event in events if event["event"] == "adaptive_lr_challenge_result"]
    return {"loss": problem.evaluate(), "won": sum(won), "tried": len(won)}


def train_to(step: int, auto: AutoLR, problem: Problem) -> None:
    """Train up to `step`."""
    while auto.step_count < step:
        loss = problem.loss(auto.batch)
        loss.backward()
        auto.step(loss)


def gains(case: Case, seed: int) -> dict[str, Any]:
    """What three times the rate gains after the warm-up, by the length of the comparison."""
    torch.set_num_threads(1)
    problem = case.build(seed)
    optimizer = case.optimizer(problem.model, 1e-4)
    auto = AutoLR(problem.model, optimizer, case.steps, WITHOUT)
    lr = auto.search(problem.loss).suggestion
    if lr is None:
        return {"lr": None}
    train_to(auto.step_count + 1, auto, problem)
    assert auto.control is not None
    train_to(auto.control.plan.warmup_end, auto, problem)
    snapshot, trial = auto.engine.snapshot(), ClosureTrial(problem.model, auto.engine, problem.loss)
    factor = ChallengeConfig().factor
    own, higher = (train_and_restore(trial, snapshot, auto.batch, lr * f, max(LENGTHS)) for f in (1.0, factor))
    return {"lr": lr, **{str(n): compare(own[:n], higher[:n], ChallengeConfig()).gain for n in LENGTHS}}


def fixed_run(case: Case, seed: int, lr: float) -> float:
    """Final loss at a fixed rate, with the warm-up and the anneal of `auto`."""
    torch.set_num_threads(1)
    problem = case.build(seed)

    def anneal(progress: float) -> float:  # of what the warm-up leaves
        return min(1.0, (1 - progress) * (1 - WARMUP_FRACTION) / DEFAULT_FRACTION)

    warmup = warmup_steps(case.steps, WARMUP_FRACTION)
    train(problem, Scheduled(case.optimizer(problem.model, lr), case.steps, anneal, warmup), case.steps)
    final = problem.evaluate()
    return final if math.isfinite(final) else math.inf


def measure(pool: ProcessPoolExecutor, name: str) -> dict[str, Any]:
    """The row of one case."""
    case = CASES[name]
    grid = [10.0 ** (e / 2) for e in range(-7, 0)]
    jobs = {
        "with": [pool.submit(auto_run, case, seed, COUNTED) for seed in SEEDS],
        "without": [pool.submit(auto_run, case, seed, WITHOUT) for seed in SEEDS],
        "gains": [pool.submit(gains, case, seed) for seed in SEEDS],
    }
    fixed = {lr: [pool.submit(fixed_run, case, seed, lr) for seed in SEEDS] for lr in grid}
    found = {key: [job.result() for job in of] for key, of in jobs.items()}
    means = {lr: statistics.fmean(job.result() for job in of) for lr, of in fixed.items()}
    best = min(means, key=lambda lr: means[lr])
    row: dict[str, Any] = {"name": name, "lr": [g["lr"] for g in found["gains"]], "best_lr": best, "best": means[best]}
    row |= {f"gain_{n}": [g[str(n)] for g in found["gains"] if g["lr"] is not None] for n in LENGTHS}
    row |= {key: statistics.fmean(run["loss"] for run in found[key]) for key in ("with", "without")}
    return row | {key: [run[key] for run in found["with"]] for key in ("won", "tried")}


def table_of(rows: list[dict[str, Any]]) -> Table:
    """The rows for the terminal."""
    table = Table("case", "LR found", "best LR", "gain over 16 steps", "over 32", "won", "without", "with", "best LR's")
    for row in rows:
        rates = ", ".join("-" if lr is None else f"{lr:.2g}" for lr in row["lr"])
        over = [", ".join(f"{100 * gain:+.1f}" for gain in row[f"gain_{n}"]) + " %" for n in LENGTHS]
        won = ", ".join(f"{won} of {tried}" for won, tried in zip(row["won"], row["tried"], strict=True))
        ends = [f"{row[key]:.4g} ({100 * (row[key] / row['best'] - 1):+.1f} %)" for key in ("without", "with")]
        table.add_row(row["name"], rates, f"{row['best_lr']:.2g}", *over, won, *ends, f"{row['best']:.4g}")
    return table


def main() -> None:
    """Measure every case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--cases", default=",".join(CASES), help="which, comma-separated [all]")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each [2]")
    args = parser.parse_args()
    with ProcessPoolExecutor(args.workers) as pool:
        rows = [measure(pool, name) for name in args.cases.split(",")]
    Console(width=180).print(table_of(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
