"""Mixture of SwiGLU experts with a top-k softmax router and a load-balancing loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.projection import Projection


def load_balancing_loss(probs: Tensor, chosen: Tensor, counted: Tensor) -> Tensor:
    """Switch Transformer balance loss, num_experts * sum_e f_e * P_e (Fedus et al. 2021, equations 4 to 6).

    `probs` (..., experts) are the router's probabilities, `chosen` (..., experts) is 1 where a token is
    routed, `counted` (...) is 1 on the tokens that count. f_e is the share of routing slots expert e got
    (no gradient), P_e its mean probability (carries the gradient). Scalar: 1 when balanced, up to
    num_experts / k when k experts get everything.
    """
    weight = counted.to(probs.dtype)[..., None]
    axes = tuple(range(probs.dim() - 1))
    slots = (chosen.detach() * weight).sum(axes)
    share = slots / slots.sum().clamp(min=1)
    mean_prob = (probs * weight).sum(axes) / weight.sum().clamp(min=1)
    return probs.shape[-1] * (share * mean_prob).sum()


class Router(Projection):
    """Logit of every expert, fp32 also under autocast: rounded logits would tie and flip choices."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden) to fp32 (..., experts)."""
        with torch.autocast(x.device.type, enabled=False):
            return F.linear(x.float(), self.weight.float())


class MoEMLP(nn.Module):
    """Top-k mixture of SwiGLU experts, computed as one wide SwiGLU.

    All experts are computed for every token, and those a token is not routed to get weight zero: value and
    gradient are those of sparse dispatch. Gathering the tokens of each expert instead needs group sizes on
    the host, a device sync in every block of every cycle; at the handful of small experts meant here that
    costs more than the extra arithmetic. It also drops no token (a capacity limit would make a token's
    output depend on other tokens), is deterministic, and uses every parameter in every step, as DDP and
    ZeRO require.
    """

    def __init__(self, config: HRMConfig) -> None:
        """`num_experts` SwiGLUs side by side: expert e owns rows [e] of gate_up and columns [e] of down."""
        super().__init__()
        self.num_experts = config.num_experts
        self.top_k = config.num_experts_per_tok
        width = config.num_experts * config.intermediate_size
        self.router = Router(config.hidden_size, config.num_experts, config.initializer_range)
        self.gate_up = Projection(config.hidden_size, 2 * width)
        # The scale of one expert: the mixing weights sum to 1.
        self.down = Projection(width, config.hidden_size, 1 / math.sqrt(config.intermediate_size))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, chosen (1 or 0) and mixing weights, each fp32 (..., experts).

        The weights are the chosen probabilities divided by their sum.
        """
        probs = self.router(x).softmax(-1)
        chosen = torch.zeros_like(probs).scatter(-1, probs.topk(self.top_k, dim=-1).indices, 1.0)
        kept = probs * chosen
        return probs, chosen, kept / kept.sum(-1, keepdim=True)

    def forward(self, x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(batch, time, hidden) to the same shape, and the load-balancing loss over the `counted` tokens.

        Returned, not stored: a loss kept in the module would leak from one call into the next. None when
        `counted` is None, which is how the passes without gradient are left out.
        """
        probs, chosen, weights = self.route(x)
        gate, up = self.gate_up(x).unflatten(-1, (self.num_experts, -1)).chunk(2, dim=-1)
        # Weighting the inner activations lets one product with `down` both project and sum over experts.
        inner = F.silu(gate) * up * weights[..., None].to(x.dtype)
        balance = None if counted is None else load_balancing_loss(probs, chosen, counted)
        return self.down(inner.flatten(-2)), balance
