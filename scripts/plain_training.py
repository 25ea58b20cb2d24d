"""A plain loop of torch over the same model: what `gpu_check.py` holds the trainer's speed and memory against.

    python scripts/plain_training.py --preset tiny --device cpu --steps 5

Random tokens, forward, one backward pass, clipping, AdamW: none of ours but the model. It prints one line of JSON:
tokens in a second; floating point operations that a token's training takes, counted by torch from the shapes of the
products; how many of them in a second a large matrix product of the same number type makes on this device.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from aios.core.architecture import PRESETS
from aios.core.hrm_models import HRMConfig, HRMForCausalLM

VOCABULARY = 2048
"""Tokens of the bundled tokenizer."""
LARGE = {"cuda": 8192, "cpu": 1024}
"""Rows and columns of the matrices of the product that is the limit."""
PRODUCTS = 10
"""How many of them are timed."""


def computing(device: str) -> AbstractContextManager[object]:
    """The number type that the trainer computes in by default."""
    return torch.autocast(device, torch.bfloat16, enabled=device == "cuda")


def seconds_of(call: Callable[[], object], times: int, device: str) -> float:
    """Wall seconds of so many calls, to the end of what they launched."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    begun = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return time.perf_counter() - begun


def product_rate(device: str) -> float:
    """Floating point operations in a second of a large matrix product."""
    size = LARGE[device]
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    matrix @ matrix  # the first one chooses its kernel
    return 2 * size**3 * PRODUCTS / seconds_of(lambda: matrix @ matrix, PRODUCTS, device)


def plain_step(model: nn.Module, ids: Tensor, device: str) -> Callable[[], None]:
    """One optimizer step on `ids`, as a function."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with computing(device):
            loss = model(ids, labels=ids).loss
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def measure(preset: str, device: str, steps: int, batch: int, length: int) -> dict[str, float]:
    """What the command prints."""
    torch.manual_seed(0)
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # as the trainer does
    shape = dataclasses.asdict(PRESETS[preset])
    config = HRMConfig(vocab_size=VOCABULARY, max_position_embeddings=length, **shape)
    model = HRMForCausalLM(config).to(device).train()
    step = plain_step(model, torch.randint(0, VOCABULARY, (batch, length), device=device), device)
    with FlopCounterMode(display=False) as counted:
        step()
    step()
    tokens = batch * length
    return {
        "tokens_per_second": tokens * steps / seconds_of(step, steps, device),
        "flops_per_token": counted.get_total_flops() / tokens,
        "product_rate": product_rate(device),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=tuple(PRESETS), default="tiny")
    parser.add_argument("--device", choices=tuple(LARGE), default="cuda")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--max-seq-len", type=int, default=256)
    args = parser.parse_args()
    print(json.dumps(measure(args.preset, args.device, args.steps, args.batch_size, args.max_seq_len)))


if __name__ == "__main__":
    main()
