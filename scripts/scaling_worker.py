"""One worker of bench_scaling.py: our step loop, plain DDP and plain DeepSpeed code in turns, in the same processes.

Started by torchrun with the mode and a file for the result; worker 0 writes the seconds per step of each block.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.model_setup import new_model
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.core.hrm_models.batch import Batch
from aios.distributed.environment import place_of
from aios.distributed.workers import Workers, joined
from aios.runs.training_log import TrainingLog
from aios.settings.config import TrainingConfig
from bench_overhead import bare_block, trainer_block

BLOCKS, STEPS = 8, 10
"""Blocks of each side, and optimizer steps of one."""
MODES: dict[str, dict[str, Any]] = {
    "plain": {},
    "ddp": {"ddp": True},
    **{stage: {"zero_stage": stage} for stage in ("zero1", "zero2", "zero3")},
}


def deepspeed_engine(model: Any, stage: int) -> Any:
    """DeepSpeed as its own examples use it."""
    import deepspeed

    settings = {
        "train_micro_batch_size_per_gpu": TrainingConfig().batch_size,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "zero_force_ds_cpu_optimizer": False,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings, dist_init_required=False)
    return engine


def deepspeed_block(engine: Any, batches: list[Batch]) -> float:
    """Seconds per step of the same steps by that engine."""
    begun = time.perf_counter()
    for batch in batches:
        engine.backward(engine(**batch._asdict()).loss)
        engine.step()
    return (time.perf_counter() - begun) / len(batches)


def measure(mode: str, workers: Workers, folder: Path) -> list[list[float]]:
    """Seconds per step, round by round: ours, plain DDP, for ZeRO plain DeepSpeed too; the first round warms up."""
    config = TrainingConfig(lr=1e-3, steps=2 * BLOCKS * STEPS, eval_every=0, save_every=0, device="cpu", **MODES[mode])
    origin = Origin(config)
    setup = prepare(origin, lambda done, total: None, workers)
    with TrainingLog(folder / "metrics.jsonl" if workers.is_main else None) as log:
        run = build_run(origin, setup, log.write)
        begin_learning_rate(run, None)
        plain = DistributedDataParallel(new_model(config, setup.tokenizer).train())
        optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, fused=True)
        blocks: list[Callable[[list[Batch]], float]] = [lambda batches: trainer_block(run, len(batches))]
        blocks.append(partial(bare_block, plain, optimizer))
        if config.uses_deepspeed:
            engine = deepspeed_engine(new_model(config, setup.tokenizer).train(), int(mode[-1]))
            blocks.append(partial(deepspeed_block, engine))
        rounds = []
        for _ in range(BLOCKS + 1):
            batches = [run.train_batches.batch(run.position + i) for i in range(STEPS)]
            seconds = []
            for block in blocks:
                workers.wait()
                seconds.append(block(batches))
            rounds.append(seconds)
    return rounds[1:]


def main() -> None:
    """Measure the mode named first; worker 0 writes the rounds into the file named second."""
    mode, result = sys.argv[1:]
    with joined(place_of()) as workers, tempfile.TemporaryDirectory() as folder:
        rounds = measure(mode, workers, Path(folder))
        if workers.is_main:
            Path(result).write_text(json.dumps(rounds), encoding="utf-8")


if __name__ == "__main__":
    main()
