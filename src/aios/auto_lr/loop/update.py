"""The optimizer's update: param-group rates, clipping, and the skip of an update that would do harm."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from aios.auto_lr.param_groups import SCALE


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Give base `lr` and every group its ratio to the first (that of their `initial_lr`) times its role's scale."""
    first = optimizer.param_groups[0]["initial_lr"]
    for group in optimizer.param_groups:
        write_learning_rate(group, lr * (group["initial_lr"] / first) * group.get(SCALE, 1.0))


def write_learning_rate(group: dict[str, Any], rate: float) -> None:
    """Set the LR of one param group; a tensor LR stays the same tensor, because capturable optimizers hold on to it."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def learning_rates(optimizer: torch.optim.Optimizer) -> float | list[float]:
    """The LR in force: one number, or one per param group where they differ."""
    rates = [float(group["lr"]) for group in optimizer.param_groups]
    return rates[0] if len(set(rates)) == 1 else rates


def check_dense(model: nn.Module) -> None:
    """Raises ValueError, naming the parameter, for a sparse gradient: torch cannot take its norm."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise ValueError(
                f"the gradient of {name} is sparse and cannot be clipped; build its layer with sparse=False"
            )


def clip_and_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    loss: Tensor,
    max_grad_norm: float,
    skip_above: float = math.inf,
) -> Tensor:
    """Clip, update and clear the gradients; returns the norm before clipping, a scalar on the device.

    An update whose loss or gradient is not finite, or whose gradient norm exceeds `skip_above`, is skipped: weights
    and moments stay as they were. Fused optimizers read the flag on the device, so the host never waits for it;
    for others it is read back.
    """
    scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    skip = ~(torch.isfinite(grad_norm) & torch.isfinite(loss.detach()) & (grad_norm <= skip_above))
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        _fused_update(optimizer, scaler, skip)
    elif not bool(skip):
        scaler.step(optimizer)
    if scaler.is_enabled():
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return grad_norm


def _fused_update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, skip: Tensor) -> None:
    if scaler.is_enabled():
        # The scaler hands its own flags to the optimizer; a skip for another reason joins them.
        for found_inf in scaler._found_inf_per_device(optimizer).values():
            found_inf += skip.to(found_inf.device, found_inf.dtype)
        scaler.step(optimizer)
    else:
        optimizer.found_inf = skip.float()  # type: ignore[attr-defined]
        optimizer.step()
