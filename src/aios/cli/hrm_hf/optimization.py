"""The optimizer of a run: its param groups, its update, and the skip of an update that is not finite."""

from __future__ import annotations

import torch
from torch import Tensor, nn

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


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give the first group `lr` and every other one its ratio to the first."""
    first = optimizer.param_groups[0]["initial_lr"]
    for group in optimizer.param_groups:
        group["lr"] = lr * (group["initial_lr"] / first)


def learning_rates(optimizer: torch.optim.Optimizer) -> float | list[float]:
    """The LR in force: one number, or one per param group where they differ."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return rates[0] if len(set(rates)) == 1 else rates


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, object]) -> None:
    """Load the moments of a checkpoint; the settings of the groups stay those of this run."""
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)


def clip_and_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss: Tensor,
    max_grad_norm: float,
) -> Tensor:
    """Clip, update and clear the gradients; returns the norm before clipping, a scalar on the device.

    An update whose loss or gradient is not finite is skipped: weights and moments stay as they were. The fused
    kernel itself reads the flag, so the host never waits for it.
    """
    scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        finite = torch.isfinite(grad_norm) & torch.isfinite(loss)
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return grad_norm
