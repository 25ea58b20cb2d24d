"""What the adaptive learning rate and the trainer around it cost.

(a) microseconds per scheduler `step()`, beside transformers' GreedyLR and torch's ReduceLROnPlateau;
(b) time of a whole trainer step over a bare loop with the same model, optimizer and batches
    (forward, backward, clip, step), in alternating blocks of the same process.

Prints two tables, writes JSON with --json, and exits 1 when a target is missed (a: not slower than the faster
peer; b: ratio at most 1.03).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.model_setup import new_model
from aios.cli.hrm_hf.optimization import build_optimizers
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import Setup, build_run
from aios.cli.hrm_hf.train_epoch import TrainingRun, train_epoch
from aios.core.hrm_models.batch import Batch
from aios.data.dataset import DataConfig, DataSplit, EvalBatches, TrainBatches, load_data
from aios.data.tokenizer import load_tokenizer
from aios.engines.device import choose_device, choose_precision
from aios.runs.training_log import TrainingLog
from aios.settings.config import TrainingConfig
from aios.terminal.console import RunConsole
from bench_step_cost import cost_table, measure

TARGET_RATIO = 1.03
WARM_STEPS = 5


def trainer_block(run: TrainingRun, steps: int) -> float:
    """Seconds per step of the real step loop, log and console included."""
    target = run.step + steps
    run.auto.pause_at(target)
    begun = time.perf_counter()
    train_epoch(run, save=lambda: None, stop_reason=lambda: None)
    seconds = time.perf_counter() - begun
    if run.step != target:
        raise RuntimeError(f"the trainer stopped at step {run.step} instead of {target}: nothing was measured")
    return seconds / steps


def bare_block(model: Any, optimizer: torch.optim.Optimizer, batches: list[Batch]) -> float:
    """Seconds per step of forward, backward, clip and step on batches that are already there."""
    begun = time.perf_counter()
    for batch in batches:
        model(**batch._asdict()).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return (time.perf_counter() - begun) / len(batches)


def measure_trainer(blocks: int, steps_per_block: int) -> dict[str, Any]:
    """Medians of both sides and the median of the pairwise ratios."""
    config = TrainingConfig(lr=1e-3, steps=WARM_STEPS + blocks * steps_per_block, eval_every=0, save_every=0)
    tokenizer = load_tokenizer(None)
    data = load_data(DataConfig(seq_len=config.max_seq_len), tokenizer)
    bare_model = new_model(config, tokenizer)
    [bare_optimizer] = build_optimizers(bare_model, 1e-3, config.weight_decay, config.optimizer)
    bare_model.train()
    batches = TrainBatches(data.train, config.seed, config.batch_size)
    with tempfile.TemporaryDirectory() as folder, TrainingLog(Path(folder) / "metrics.jsonl") as log:
        run = _trainer(config, data, new_model(config, tokenizer), log)
        pairs = []
        for block in range(blocks + 1):  # the first is warm-up
            steps = steps_per_block if block else WARM_STEPS
            fetched = [batches.batch(run.position + i) for i in range(steps)]
            sides = [partial(trainer_block, run, steps), partial(bare_block, bare_model, bare_optimizer, fetched)]
            # Which side goes first alternates, so that a machine that slows down hits both alike.
            times = [side() for side in (sides if block % 2 else sides[::-1])]
            pairs.append(tuple(times if block % 2 else times[::-1]))
    trainer, bare_times = zip(*pairs[1:], strict=True)
    ratios = [a / b for a, b in pairs[1:]]
    return {
        "trainer_ms": 1e3 * statistics.median(trainer),
        "bare_ms": 1e3 * statistics.median(bare_times),
        "ratio": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "steps": blocks * steps_per_block,
    }


def _trainer(config: TrainingConfig, data: DataSplit, model: Any, log: TrainingLog) -> TrainingRun:
    console = RunConsole(config.steps)
    device = choose_device(config)

    def log_fn(record: dict[str, Any]) -> None:
        console.show(log.write(record))

    batches = EvalBatches(data.eval, config.batch_size, config.eval_batches)
    setup = Setup(device, choose_precision(config, device), load_tokenizer(None), data, batches, model.to(device))
    run = build_run(Origin(config), setup, log_fn)
    begin_learning_rate(run, None)
    return run


def main() -> int:
    """Run both measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--blocks", type=int, default=12, help="pairs of blocks for (b)")
    parser.add_argument("--steps-per-block", type=int, default=10)
    args = parser.parse_args()
    step_cost = measure()
    trainer = measure_trainer(args.blocks, args.steps_per_block)
    console = Console()
    console.print(cost_table(step_cost))
    table = Table(title="(b) a trainer step over a bare loop, demo preset, CPU")
    for column in ("trainer, ms", "bare loop, ms", "ratio (median)", "ratio (min .. max)", "target"):
        table.add_column(column, justify="right")
    spread = f"{trainer['ratio_min']:.3f} .. {trainer['ratio_max']:.3f}"
    numbers = [f"{trainer[key]:.2f}" for key in ("trainer_ms", "bare_ms")]
    table.add_row(*numbers, f"{trainer['ratio']:.3f}", spread, f"<= {TARGET_RATIO}")
    console.print(table)
    result = {"step_cost": step_cost, "trainer": trainer}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if step_cost["ratio"] <= 1 and trainer["ratio"] <= TARGET_RATIO else 1


if __name__ == "__main__":
    sys.exit(main())
