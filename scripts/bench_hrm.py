"""What the model costs: tokens per second of generation, with its cache and without.

`python scripts/bench_hrm.py [--json docs/benchmarks/hrm.json] [--repeats 3]` measures untrained models (whose tokens
use all segments) on the CPU, in one process, the two sides by turns so that a noisy machine disturbs both alike. It
prints a table. Exit code 1 when a target is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from aios.core.architecture import PRESETS
from aios.core.hrm_models import HRMConfig, HRMForCausalLM

VOCABULARY = 2048
"""Tokens of the bundled tokenizer."""
NEW_TOKENS = 128
PROMPTS = (16, 128)
"""Lengths of the prompts, in tokens."""
CACHE_TARGET = 4.0
"""Cached generation of `tiny` after the longer prompt is to be this many times as fast."""


def median_seconds(sides: Sequence[Callable[[], object]], repeats: int) -> list[float]:
    """Median seconds of a call of each side, called by turns, after one call of each that does not count."""
    times: list[list[float]] = [[] for _ in sides]
    for turn in range(repeats + 1):
        for side, taken in zip(sides, times, strict=True):
            begun = time.perf_counter()
            side()
            if turn > 0:
                taken.append(time.perf_counter() - begun)
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
        return lambda: model.generate(ids, use_cache=use_cache, do_sample=False, max_new_tokens=NEW_TOKENS)

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


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each side")
    args = parser.parse_args()
    generation = [measure_generation(preset, n, args.repeats) for preset in ("tiny", "small") for n in PROMPTS]
    Console().print(generation_table(generation))
    if args.json is not None:
        told = {"torch": torch.__version__, "threads": torch.get_num_threads(), "generation": generation}
        args.json.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    aimed_at = next(row for row in generation if (row["preset"], row["prompt"]) == ("tiny", max(PROMPTS)))
    return int(aimed_at["ratio"] < CACHE_TARGET)


if __name__ == "__main__":
    sys.exit(main())
