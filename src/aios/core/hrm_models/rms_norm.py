"""RMSNorm, with a backward pass of its own where torch has no fused one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def rms_norm(x: Tensor, eps: float) -> Tensor:
    """RMSNorm over the last dimension without a learned gain, as in HRM (statistics in fp32), of x's shape and type.

    Zhang and Sennrich 2019 (arXiv 1910.07467), equation 4. On a CPU torch differentiates it operation by operation,
    each of which reads and writes all of x; `_RMSNorm` has the same values and takes a third of the time.
    """
    if x.device.type != "cpu" or not (torch.is_grad_enabled() and x.requires_grad) or torch.compiler.is_compiling():
        return F.rms_norm(x, (x.shape[-1],), None, eps)
    y, _ = _RMSNorm.apply(x if x.dtype == torch.float64 else x.float(), eps)
    return y.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    """y = x r and r = 1 / sqrt(mean(x^2) + eps), of which its backward needs nothing else.

    r is an output, so that the backward can be differentiated too.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Of x (..., size), y of its shape and r (..., 1)."""
        r = torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)
        return x * r, r

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        """Keep both outputs; y is kept by what comes after it anyway."""
        ctx.save_for_backward(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """As dr/dx = -r^2 y / size, x's gradient is r (g_y - y (<g_y, y> + g_r r) / size)."""
        y, r = ctx.saved_tensors
        g_y, g_r = grads
        along = ((g_y * y).sum(-1, keepdim=True) + g_r * r) / y.shape[-1]
        return torch.addcmul(g_y, y, along, value=-1).mul_(r), None
