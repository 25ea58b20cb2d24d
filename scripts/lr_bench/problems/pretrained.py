"""Models that have been trained before: fine-tuned whole, or by adapters of low rank."""

from __future__ import annotations

from dataclasses import replace

import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from lr_bench.problems.problem import CACHE, Problem
from lr_bench.problems.text import byte_gpt

STEPS, PEAK = 1500, 3e-3
"""Of the training before: linear to zero."""
ADAPTED = ["qkv", "proj", "up", "down"]


def finetune(seed: int, before: str, text: str, part: int | None = None) -> Problem:
    """The byte GPT of (the first half of) the text `before`, to be trained on (a half of) `text`."""
    problem = byte_gpt(seed, text, part)
    problem.model.load_state_dict(_pretrained(before, None if part is None else 0))
    return problem


def lora(seed: int, before: str, text: str) -> Problem:
    """The same with everything frozen but adapters of rank 4 in every linear layer of the blocks."""
    problem = finetune(seed, before, text)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=ADAPTED)
    return replace(problem, model=inject_adapter_in_model(config, problem.model))


def _pretrained(text: str, part: int | None) -> dict[str, Tensor]:
    """Weights of a byte GPT trained on a text, made once."""
    path = CACHE / f"pretrained-{text}-{'all' if part is None else part}.pt"
    if not path.exists():
        weights = _pretrain(byte_gpt(1000, text, part))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(weights, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    return found


def _pretrain(problem: Problem) -> dict[str, Tensor]:
    optimizer = torch.optim.AdamW(problem.model.parameters(), lr=PEAK, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = PEAK * min(1.0, (step + 1) / 100) * (1 - step / STEPS)
        problem.loss(step).backward()
        nn.utils.clip_grad_norm_(problem.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in problem.model.state_dict().items()}
