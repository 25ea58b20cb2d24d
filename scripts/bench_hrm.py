"""What the model costs: generation with its cache and without, and a step of training.

The step is held against a bare loop over the same blocks and against its matrix products alone (`dense_step.py`), with
experts also against those computed densely.

`python scripts/bench_hrm.py [--json docs/benchmarks/hrm.json] [--repeats 3]` measures untrained models (whose tokens
use all segments) on one CPU core, in one process, the two sides by turns; times are the processor's, which other
processes on the machine do not lengthen as they do the clock's. It prints three tables; exit code 1 when a target is
missed. With `--choices` it has the command train with each of the choices in `hrm_choices.py` instead, with
`--optimizers` under each optimizer, for half an hour or more, and prints a table of evaluation losses; interrupted and
started again, it goes on.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aios.core.architecture import PRESETS
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from dense_experts import make_dense
from dense_step import PlainLoop, Products
from hrm_choices import STEPS, Trainings, choices_table, measure_choices, measure_optimizers, optimizers_table
from plain_training import VOCABULARY, plain_step
from remembered import put_figures

ROOT = Path(__file__).resolve().parents[1]

NEW_TOKENS = 128
PROMPTS = (16, 128)
"""Lengths of the prompts, in tokens."""
CACHE_TARGET = 4.0
"""Cached generation of `tiny` after the longer prompt is to be this many times as fast."""

EXPERTS = (4, 8, 16)
BATCHES = {"fp32": (8, 128), "bf16": (4, 64)}
"""Sequences and tokens of each in a step with experts; few where a CPU without instructions for the type is slow."""
EXPERTS_TARGET = 0.45
"""A step of `tiny` with 8 experts, of which a token uses 2, is to take at most this part of the dense one."""

STEP_BATCH = BATCHES["fp32"]
"""That of a step beside the bare loop: what the trainer has by default."""
STEP_TURNS = 5
"""Steps of each side for one measurement elsewhere: these sides are close to each other."""
PLAIN_TARGET = 1.02
"""A dense step is to take at most this part of the bare loop's time: as long, and what measuring is uncertain by."""
LIMIT_TARGET = 0.75
"""Its products alone are to take at least this part of its time."""


def median_seconds(sides: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median processor seconds of a call of each side, called by turns, after one call of each that does not count."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats + 1):
        for side, taken in zip(sides, times, strict=True):
            begun = time.process_time()
            side()
            if turn > 0:
                taken.append(time.process_time() - begun)
    return [statistics.median(taken) for taken in times]


def preset_model(preset: str, **overrides: Any) -> HRMForCausalLM:
    """An untrained model of a preset, for texts of 256 tokens."""
    torch.manual_seed(0)
    shape = dataclasses.asdict(PRESETS[preset])
    return HRMForCausalLM(HRMConfig(vocab_size=VOCABULARY, max_position_embeddings=256, **shape, **overrides))


def measure_generation(preset: str, prompt: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of a greedy answer of 128 tokens to a prompt of so many."""
    model = preset_model(preset).eval()
    ids = torch.randint(0, VOCABULARY, (1, prompt), generator=torch.Generator().manual_seed(1))

    def answer(use_cache: bool) -> Callable[[], object]:
        how = {"use_cache": use_cache, "do_sample": False, "max_new_tokens": NEW_TOKENS}
        return torch.inference_mode()(lambda: model.generate(ids, **how))  # as `aios hrm-hf generate` does

    cached, plain = (NEW_TOKENS / seconds for seconds in median_seconds([answer(True), answer(False)], repeats))
    return {
        "preset": preset, "prompt": prompt, "new_tokens": NEW_TOKENS,
        "cached_tokens_per_s": cached, "uncached_tokens_per_s": plain, "ratio": cached / plain,
    }  # fmt: skip


def generation_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_generation` returned, one row each."""
    table = Table(
        "preset", "prompt", "cached tokens/s", "uncached", "ratio", title=f"generation of {NEW_TOKENS} tokens"
    )
    for row in rows:
        speeds = (f"{row[name]:.1f}" for name in ("cached_tokens_per_s", "uncached_tokens_per_s"))
        table.add_row(row["preset"], str(row["prompt"]), *speeds, f"{row['ratio']:.1f}")
    return table


def measure_experts(experts: int, mixed: bool, repeats: int) -> dict[str, Any]:
    """Seconds of forward and backward of `tiny` with so many experts, 2 for each token; `mixed`: bf16 autocast."""
    kind = "bf16" if mixed else "fp32"
    ids = torch.randint(0, VOCABULARY, BATCHES[kind], generator=torch.Generator().manual_seed(1))

    def step(dense: bool) -> Callable[[], object]:
        model = preset_model("tiny", use_moe=True, num_experts=experts, num_experts_per_tok=2).train()
        if dense:
            make_dense(model)

        def run() -> None:
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16) if mixed else nullcontext():
                loss = model(ids, labels=ids).loss
            loss.backward()

        return run

    grouped, dense = median_seconds([step(False), step(True)], repeats)
    result = {"experts": experts, "type": kind, "batch": BATCHES[kind]}
    return {**result, "grouped_s": grouped, "dense_s": dense, "ratio": grouped / dense}


def experts_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_experts` returned, one row each."""
    table = Table("experts", "type", "batch", "grouped s", "dense s", "ratio", title="a step of tiny")
    for row in rows:
        times = (f"{row[name]:.3f}" for name in ("grouped_s", "dense_s"))
        batch = " x ".join(map(str, row["batch"]))
        table.add_row(str(row["experts"]), row["type"], batch, *times, f"{row['ratio']:.2f}")
    return table


def measure_step(preset: str, experts: int, repeats: int) -> dict[str, Any]:
    """Tokens per second of an optimizer step in fp32, of the bare loop's, and if there were the products alone.

    `experts` of which a token uses 2; 0: a dense model.
    """
    ids = torch.randint(0, VOCABULARY, STEP_BATCH, generator=torch.Generator().manual_seed(1))
    shape = {"use_moe": True, "num_experts": experts, "num_experts_per_tok": 2} if experts else {}

    def model() -> HRMForCausalLM:
        return preset_model(preset, **shape).train()

    step, plain = plain_step(model(), ids, "cpu"), plain_step(PlainLoop(model()), ids, "cpu")
    with Products() as products:
        step()
    seconds = median_seconds([step, plain, products.alone()], repeats * STEP_TURNS)
    ours, bare, limit = (ids.numel() / each for each in seconds)
    return {
        "preset": preset, "experts": experts, "batch": STEP_BATCH,
        "tokens_per_s": ours, "plain_tokens_per_s": bare, "limit_tokens_per_s": limit,
        "time_to_plain": bare / ours, "limit_to_time": ours / limit,
    }  # fmt: skip


def misses(row: dict[str, Any]) -> bool:
    """Whether what `measure_step` returned of a dense model is short of a target."""
    return row["experts"] == 0 and (row["time_to_plain"] > PLAIN_TARGET or row["limit_to_time"] < LIMIT_TARGET)


def step_table(rows: Sequence[dict[str, Any]]) -> Table:
    """What `measure_step` returned, one row each."""
    names = ("tokens/s", "bare loop", "products alone", "time / bare loop", "products / time")
    table = Table("preset", "experts", *names, title=f"a step on {' x '.join(map(str, STEP_BATCH))} tokens, fp32")
    for row in rows:
        speeds = (f"{row[name]:.0f}" for name in ("tokens_per_s", "plain_tokens_per_s", "limit_tokens_per_s"))
        ratios = (f"{row[name]:.2f}" for name in ("time_to_plain", "limit_to_time"))
        table.add_row(row["preset"], str(row["experts"] or "-"), *speeds, *ratios)
    return table


def compare_trainings(what: str, steps: int, figures: Path | None) -> None:
    """Train with each of the choices, or optimizers; print, and put the figures into the file if there is one."""
    measure, table = {
        "choices": (measure_choices, choices_table),
        "optimizers": (measure_optimizers, optimizers_table),
    }[what]
    rows = measure(Trainings.open(ROOT / "build" / "bench_hrm"), steps)
    Console().print(table(rows))
    if figures is not None:
        put_figures(figures, {what if steps == STEPS else f"{what}, {steps} steps": rows})


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    parser.add_argument("--choices", action="store_true", help="train with each choice instead")
    parser.add_argument("--optimizers", action="store_true", help="train under each optimizer instead")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"of each of those trainings [{STEPS}]")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.choices or args.optimizers:
        compare_trainings("choices" if args.choices else "optimizers", args.steps, args.json)
        return 0
    generation = [measure_generation(preset, n, args.repeats) for preset in ("tiny", "small") for n in PROMPTS]
    Console().print(generation_table(generation))
    moe = [measure_experts(experts, mixed, args.repeats) for mixed in (False, True) for experts in EXPERTS]
    Console().print(experts_table(moe))
    models = [("tiny", 0), ("small", 0), *(("tiny", experts) for experts in EXPERTS)]
    steps = [measure_step(preset, experts, args.repeats) for preset, experts in models]
    Console().print(step_table(steps))
    if args.json is not None:
        machine = {"torch": torch.__version__, "threads": 1}
        put_figures(args.json, {**machine, "generation": generation, "experts": moe, "steps": steps})
    cached = next(row for row in generation if (row["preset"], row["prompt"]) == ("tiny", max(PROMPTS)))
    slow = [row for row in moe if row["experts"] == 8 and row["ratio"] > EXPERTS_TARGET]
    return int(cached["ratio"] < CACHE_TARGET or bool(slow) or any(map(misses, steps)))


if __name__ == "__main__":
    sys.exit(main())
