"""What a step of training is held against: a bare loop over the same blocks, and its matrix products alone.

A part of `bench_hrm.py`. The loop is the model without its bookkeeping; the products are what no model of these shapes
can do without, so that their time is the limit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.layers import AttentionContext, ReasoningModule


class PlainLoop(nn.Module):
    """The updates of a model's segments in a bare loop: the same weights, products and cross-entropy.

    Of the auxiliary losses there is what the Q head learns of halting; what continuing is worth, and the balance of
    experts, are left out.
    """

    def __init__(self, model: HRMForCausalLM) -> None:
        """With the modules of `model`."""
        super().__init__()
        self.config, self.states = model.config, (model.h_init, model.l_init)
        self.embed, self.head, self.q_head = model.embed_tokens, model.lm_head, model.q_head
        self.h_module, self.l_module = model.stacks[0], model.l_module

    def forward(self, ids: Tensor, labels: Tensor) -> SimpleNamespace:
        """The loss of (batch, time) tokens, as an attribute: so has a model of transformers it."""
        config = self.config
        x = self.embed(ids) * math.sqrt(config.hidden_size)
        context = AttentionContext(config, ids.shape[1], None, ids.device)
        z_h, z_l = (state.expand_as(x) for state in self.states)
        losses = []
        for _ in range(config.halt_max_steps):
            z_h, z_l = z_h.detach(), z_l.detach()
            for update in range(1, config.h_cycles * config.l_cycles + 1):
                with torch.set_grad_enabled(update == config.h_cycles * config.l_cycles):
                    z_l = through(self.l_module, z_l + z_h + x, context)
                    if update % config.l_cycles == 0:
                        z_h = through(self.h_module, z_h + z_l, context)
            logits, q = self.head(z_h)[:, :-1], self.q_head(z_h)[:, :-1]
            right = logits.argmax(-1) == labels[:, 1:]
            ce = F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
            losses.append(ce + 0.5 * F.binary_cross_entropy_with_logits(q[..., 0], right.float()))
        return SimpleNamespace(loss=torch.stack(losses).mean())


def through(stack: ReasoningModule, x: Tensor, context: AttentionContext) -> Tensor:
    """The blocks of a stack, one after the other."""
    for block in stack.blocks:
        x, _ = block(x, context, None)
    return x


class Operand(NamedTuple):
    """A matrix, or several, as it lies in memory: a transposed one is multiplied at another speed."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @classmethod
    def of(cls, tensor: Tensor) -> Operand:
        """How `tensor` lies in memory."""
        return cls(tuple(tensor.shape), tensor.stride())

    def made(self) -> Tensor:
        """One like it, of random numbers."""
        return torch.empty_strided(self.shape, self.stride).normal_()


class Products(TorchDispatchMode):
    """Counts the matrix products of what runs in it, forward and backward."""

    def __init__(self) -> None:
        """None so far."""
        super().__init__()
        self.counts: Counter[tuple[Operand, Operand]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """As torch has it: what is called for every operation."""
        name = func.overloadpacket.__name__
        if name in ("mm", "bmm"):
            self._count(args[0], args[1])
        elif name == "addmm":
            self._count(args[1], args[2])
        elif name == "_grouped_mm":
            self._count_groups(args[0], args[1], len(args[2]))
        elif name == "_scaled_dot_product_flash_attention_for_cpu":
            self._count_attention(args[0], args[1], is_causal=args[4], products=2)
        elif name == "_scaled_dot_product_flash_attention_for_cpu_backward":
            self._count_attention(args[1], args[2], is_causal=args[7], products=5)
        return func(*args, **(kwargs or {}))

    def _count(self, left: Tensor, right: Tensor, times: int = 1) -> None:
        self.counts[Operand.of(left), Operand.of(right)] += times

    def _count_groups(self, left: Tensor, right: Tensor, groups: int) -> None:
        """As many products as groups, the rows, or of gradients of weights the columns, evenly split among them."""
        if right.dim() == 3:
            self._count(left.chunk(groups)[0], right[0], groups)
        else:
            self._count(left.chunk(groups, 1)[0], right.chunk(groups)[0], groups)

    def _count_attention(self, query: Tensor, key: Tensor, is_causal: bool, products: int) -> None:
        """All of them multiply as much as the scores do; half of the queries stand for what a causal mask leaves."""
        batch, heads, queries, width = query.shape
        rows = queries // 2 if is_causal else queries
        left = torch.empty(batch * heads, rows, width, device="meta")
        right = torch.empty(batch * heads, key.shape[2], width, device="meta")
        self._count(left, right.transpose(1, 2), products)

    def alone(self) -> Callable[[], None]:
        """A function that makes all of them and nothing else, each as often as it was counted."""
        pairs = [(left.made(), right.made(), times) for (left, right), times in self.counts.items()]
        ready = [(left, right, left @ right, times) for left, right, times in pairs]

        def multiply() -> None:
            for left, right, out, times in ready:
                for _ in range(times):
                    torch.matmul(left, right, out=out)

        return multiply
