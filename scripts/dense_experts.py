"""A mixture of experts written out plainly: all experts for all tokens, those that a token is not routed to times 0.

The reference that the grouped form is tested against, and what it is measured beside.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.moe import MoEMLP, load_balancing_loss


class DenseMoEMLP(MoEMLP):
    """`MoEMLP` with the same weights, as one wide SwiGLU."""

    def forward(self, x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """See `MoEMLP`."""
        probs = self.router(x).softmax(-1)
        routed = torch.zeros_like(probs).scatter(-1, probs.topk(self.top_k, dim=-1).indices, 1.0)
        kept = probs * routed
        weights = kept / kept.sum(-1, keepdim=True)
        gate, up = F.linear(x, self.gate_up.weight).unflatten(-1, (self.num_experts, -1)).chunk(2, dim=-1)
        inner = F.silu(gate) * up * weights[..., None].to(gate.dtype)
        balance = None if counted is None else load_balancing_loss(probs, routed, counted)
        return F.linear(inner.flatten(-2), self.down.weight), balance


def make_dense(model: HRMForCausalLM) -> None:
    """Have the experts of `model` computed the plain way; its weights stay."""
    for module in model.modules():
        if type(module) is MoEMLP:
            module.__class__ = DenseMoEMLP
