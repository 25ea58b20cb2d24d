"""Post-norm transformer blocks of HRM and the stack of them that is one reasoning module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.cache_utils import DynamicLayer

from aios.core.hrm_models.configuration_hrm import HRMConfig
from aios.core.hrm_models.moe import MoEMLP
from aios.core.hrm_models.projection import Projection
from aios.core.hrm_models.rms_norm import rms_norm


def rotary_tables(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and signed sine of every rotary angle, fp32, shape (*positions.shape, 1, head_dim).

    The sine is negative in the first half, where the second is taken away. Computed once per forward and shared by all
    blocks and cycles, so there is no buffer that a change of dtype could round or that loading could lose. The extra
    dimension broadcasts over the heads.
    """
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.to(torch.float32)[..., None] * theta**-exponent
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), dim=-1)[..., None, :], torch.cat((-sin, sin), dim=-1)[..., None, :]


def apply_rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + head_dim/2) of x (batch, time, heads, head_dim), see `rotary_tables` (Su et al. 2021)."""
    return (x * cos + x.roll(x.shape[-1] // 2, -1) * sin).to(x.dtype)


class AttentionContext:
    """What all attention layers of one forward share: rotary tables, with padding the mask, and what a cache keeps."""

    def __init__(
        self,
        config: HRMConfig,
        length: int,
        mask: Tensor | None,
        device: torch.device,
        queries: int | None = None,
    ) -> None:
        """Of `length` tokens the last `queries` (None: all) are computed.

        `mask` is the transformers attention mask (batch, length), 1 on real tokens, or None.
        """
        queries = length if queries is None else queries
        self.queries = queries
        self.kept: Iterator[DynamicLayer] | None = None
        """Where each attention call to come finds keys and values of the tokens before the queries."""
        columns = torch.arange(length, device=device)
        positions = columns
        self.allowed = None
        self.is_causal = mask is None and queries == length
        if mask is not None:
            # Positions count real tokens only, so left padding moves no token.
            positions = (mask.long().cumsum(-1) - 1).clamp(min=0)
        if not self.is_causal and (mask is not None or queries > 1):
            rows = columns[-queries:, None]
            self.allowed = columns <= rows
            if mask is not None:
                # Padding sees itself: a row without any key would be NaN.
                self.allowed = (self.allowed & mask.bool()[:, None, None, :]) | (columns == rows)
        self.cos, self.sin = rotary_tables(positions[..., -queries:], config.head_dim, config.rope_theta)

    def with_kept(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of all tokens for one attention call, given those of the tokens at hand; now kept, too."""
        return (k, v) if self.kept is None else next(self.kept).update(k, v)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention with rotary positions and no biases."""

    def __init__(self, config: HRMConfig) -> None:
        """One fused projection for q, k and v: fewer, larger matrix products."""
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = Projection(config.hidden_size, 3 * config.hidden_size)
        self.out = Projection(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor, context: AttentionContext) -> Tensor:
        """(batch, time, hidden) to the same shape."""
        batch, time, hidden = x.shape
        heads = self.num_heads
        qk, v = self.qkv(x).view(batch, time, 3 * heads, hidden // heads).split((2 * heads, heads), dim=2)
        q, k = apply_rotary(qk, context.cos, context.sin).transpose(1, 2).chunk(2, dim=1)
        k, v = context.with_kept(k, v.transpose(1, 2))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=context.allowed, is_causal=context.is_causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, time, hidden))


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up fused into one projection (Shazeer 2020)."""

    def __init__(self, config: HRMConfig) -> None:
        """Width from `config.intermediate_size`."""
        super().__init__()
        self.gate_up = Projection(config.hidden_size, 2 * config.intermediate_size)
        self.down = Projection(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """(..., hidden) to the same shape."""
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class HRMBlock(nn.Module):
    """Post-norm block: x = RMSNorm(x + Attention(x)); x = RMSNorm(x + MLP(x))."""

    def __init__(self, config: HRMConfig) -> None:
        """The MLP is a SwiGLU, or with `use_moe` a mixture of them."""
        super().__init__()
        self.eps = config.rms_norm_eps
        self.attention = CausalSelfAttention(config)
        self.mlp: MoEMLP | SwiGLU = MoEMLP(config) if config.use_moe else SwiGLU(config)

    def forward(self, x: Tensor, context: AttentionContext, counted: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map (batch, time, hidden) to the same shape, and the load-balancing loss.

        The loss is None without experts, or when `counted` (batch, time; the tokens to balance) is None.
        """
        x = rms_norm(x + self.attention(x, context), self.eps)
        if isinstance(self.mlp, MoEMLP):
            update, balance = self.mlp(x, counted)
        else:
            update, balance = self.mlp(x), None
        return rms_norm(x + update, self.eps), balance


class ReasoningModule(nn.Module):
    """A stack of blocks: the H or the L module of HRM."""

    lr_role = "recurrent"
    """It is applied once in each cycle of each segment: `AutoLR` lets it learn at a rate of its own."""
    # transformers' activation_checkpointing_enable sets both on every module that has the flag.
    gradient_checkpointing = False
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, config: HRMConfig, num_layers: int) -> None:
        """`num_layers` blocks of the config's shape."""
        super().__init__()
        self.compiled: Callable[..., Any] | None = None
        """What takes the place of `run` in training, see `aios.engines.compiled`."""
        self.blocks = nn.ModuleList(HRMBlock(config) for _ in range(num_layers))

    def forward(self, x: Tensor, context: AttentionContext, counted: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Map (batch, time, hidden) to the same shape, and the load-balancing losses of its blocks."""
        if self.compiled is None or not self.training:
            return self.run(x, context, counted)
        result: tuple[Tensor, list[Tensor]] = self.compiled(x, context, counted)
        return result

    def run(self, x: Tensor, context: AttentionContext, counted: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """`forward`, as it is written."""
        checkpointed = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        balances = []
        for block in self.blocks:
            if checkpointed:
                x, balance = self._gradient_checkpointing_func(block, x, context, counted)
            else:
                x, balance = block(x, context, counted)
            if balance is not None:
                balances.append(balance)
        return x, balances
