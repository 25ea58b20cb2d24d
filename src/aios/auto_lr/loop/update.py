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
    for others it is read back. The loss scale follows the overflows that `scaler` finds itself and nothing else:
    an update skipped for a reason of ours counts as one with finite gradients.
    """
    scaler.unscale_(optimizer)
    grad_norm = nn.utils.clip_grad_norm_(model.parameters(), max_grad_norm)
    # An overflow is among the reasons: it makes the norm infinite or NaN.
    skip = ~(torch.isfinite(grad_norm) & torch.isfinite(loss.detach()) & (grad_norm <= skip_above))
    if _skips_on_device(optimizer):
        set_skip(optimizer, skip)
        optimizer.step()  # not the scaler's: it would hand over a flag of its own
        clear_skip(optimizer)
    elif not bool(skip):
        optimizer.step()
    if scaler.is_enabled():
        scaler.update()
    optimizer.zero_grad(set_to_none=True)
    return grad_norm


def set_skip(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Tell a fused optimizer whether to leave everything as it is in its next steps, until `clear_skip`.

    `skip` is a boolean scalar: the kernels skip on exactly 1, any other number of them is an update.
    """
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]


def clear_skip(optimizer: torch.optim.Optimizer) -> None:
    """Let the steps that others ask for train again: a trial's, or the caller's own."""
    del optimizer.found_inf  # type: ignore[attr-defined]


def _skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `optimizer` heeds `set_skip`; torch's only sign of it is this name, which `GradScaler` goes by, too."""
    if isinstance(optimizer, torch.optim.SGD) and not optimizer.state:
        return False  # its first step would keep a momentum that was never written, skipped or not
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))
