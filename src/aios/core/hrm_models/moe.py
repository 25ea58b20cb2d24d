"""Mixture of SwiGLU experts with a top-k softmax router and a load-balancing loss."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.grouped import grouped_product
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


class Experts(Projection):
    """One projection of every expert, side by side in one matrix, for rows that are sorted by expert."""

    def __init__(self, config: HRMConfig, inputs: int, outputs: int, init_std: float | None = None) -> None:
        """`inputs` and `outputs` of the whole matrix."""
        super().__init__(inputs, outputs, init_std)
        self.num_experts = config.num_experts

    def by_expert(self, weight: Tensor) -> Tensor:
        """The matrix as (experts, inputs, outputs) of one expert each, without a copy."""
        raise NotImplementedError

    def forward(  # type: ignore[override]
        self, rows: Tensor, ends: Tensor, added: Tensor | None = None
    ) -> Tensor:
        """(n, inputs of one expert) to (n, outputs of one); expert e has the rows up to `ends[e]`.

        `added` is what comes on top of the weight, from adapters.
        """
        weight = self.weight if added is None else self.weight + added
        device = rows.device.type
        # The grouped product is none of those that autocast knows.
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        return grouped_product(rows.to(kind), self.by_expert(weight.to(kind)), ends)


class ExpertsByRow(Experts):
    """Expert e owns as many rows of the matrix as it has outputs; all experts have the same inputs."""

    def by_expert(self, weight: Tensor) -> Tensor:
        """See `Experts`."""
        return weight.unflatten(0, (self.num_experts, -1)).transpose(1, 2)


class ExpertsByColumn(Experts):
    """Expert e owns as many columns of the matrix as it has inputs; all experts have the same outputs."""

    def by_expert(self, weight: Tensor) -> Tensor:
        """See `Experts`."""
        return weight.unflatten(1, (self.num_experts, -1)).permute(1, 2, 0)


def _multiply(layer: Any, rows: Tensor, ends: Tensor) -> Tensor:
    """`layer`, an `Experts`, on rows sorted by expert, with what LoRA adapters around it add to its weight.

    Adapters of peft would take the matrix for that of an ordinary linear map, so that they are not asked to apply it.
    """
    base = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    added = None
    if base is not layer and not (layer.merged or layer.disable_adapters):
        added = sum(layer.get_delta_weight(name) for name in layer.active_adapters)
    product: Tensor = base(rows, ends, added)
    return product


class MoEMLP(nn.Module):
    """Top-k mixture of SwiGLU experts, each computed for the tokens that are routed to it and no others.

    Tokens are sorted by expert, so that one grouped product computes all experts; how many each has stays on the
    device. No token is dropped (a capacity limit would make a token's output depend on other tokens), each token's
    experts are summed in a fixed order, and every parameter is used in every step, as DDP and ZeRO require.
    """

    def __init__(self, config: HRMConfig) -> None:
        """`num_experts` SwiGLUs side by side: expert e owns rows [e] of gate_up and columns [e] of down."""
        super().__init__()
        self.num_experts = config.num_experts
        self.top_k = config.num_experts_per_tok
        width = config.num_experts * config.intermediate_size
        self.router = Router(config.hidden_size, config.num_experts, config.initializer_range)
        self.gate_up = ExpertsByRow(config, config.hidden_size, 2 * width)
        # The scale of one expert: the mixing weights sum to 1.
        self.down = ExpertsByColumn(config, width, config.hidden_size, 1 / math.sqrt(config.intermediate_size))

    def route(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities, fp32 (..., experts); the numbers of the chosen experts and their weights, each (..., k).

        The weights are the chosen probabilities divided by their sum.
        """
        probs = self.router(x).softmax(-1)
        kept, chosen = probs.topk(self.top_k, dim=-1)
        return probs, chosen, kept / kept.sum(-1, keepdim=True)

    def forward(self, x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """(batch, time, hidden) to the same shape, and the load-balancing loss over the `counted` tokens.

        Returned, not stored: a loss kept in the module would leak from one call into the next. None when
        `counted` is None, which is how the passes without gradient are left out.
        """
        probs, chosen, weights = self.route(x)
        routed = torch.zeros_like(probs).scatter(-1, chosen, 1.0)
        update = self._mix(x.flatten(0, -2), chosen.flatten(), weights.flatten(), routed.flatten(0, -2))
        balance = None if counted is None else load_balancing_loss(probs, routed, counted)
        return update.view(x.shape), balance

    def _mix(self, x: Tensor, chosen: Tensor, weights: Tensor, routed: Tensor) -> Tensor:
        """Weighted sum of the experts of each row of x (n, hidden); the others (n * k), (n * k) and (n, experts)."""
        order = chosen.argsort(stable=True)
        ends = routed.sum(0).cumsum(0).to(torch.int32)
        rows = x.repeat_interleave(self.top_k, 0).index_select(0, order)
        gate, up = _multiply(self.gate_up, rows, ends).chunk(2, dim=-1)
        # Weighted before `down`, and in its type: these are the largest tensors.
        inner = F.silu(gate) * up * weights[order, None].to(gate.dtype)
        outputs = _multiply(self.down, inner, ends)
        return outputs.index_select(0, order.argsort()).unflatten(0, (-1, self.top_k)).sum(1)
