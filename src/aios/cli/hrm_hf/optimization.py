"""The optimizer of a run: its param groups, and how a checkpoint's moments come back into them."""

from __future__ import annotations

import torch
from torch import nn

BETAS = (0.9, 0.95)
"""Moments of AdamW, as is usual for language models (GPT-3, Llama)."""


def build_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over two param groups: matrices decay; embeddings, norms and biases do not."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    trained = [p for p in model.parameters() if p.requires_grad]
    decay = [p for p in trained if p.dim() >= 2 and id(p) not in embeddings]
    rest = [p for p in trained if p.dim() < 2 or id(p) in embeddings]
    groups = [
        {"params": decay, "name": "decay", "weight_decay": weight_decay},
        {"params": rest, "name": "no_decay", "weight_decay": 0.0},
    ]
    for group in groups:
        group["initial_lr"] = lr  # its base: every later LR keeps the groups' ratios
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load the moments of a checkpoint; the settings of the groups stay those of this run."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
