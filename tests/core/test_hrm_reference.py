"""The fast segment against a slow one written out from the paper, in values and in gradients."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.layers import HRMBlock, ReasoningModule, SwiGLU


def normalise(x: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def rotate(vector: Tensor, position: int, theta: float) -> Tensor:
    """Turn each pair (i, i + half) by position * theta^(-i / half)."""
    half = len(vector) // 2
    turned = [vector[0]] * len(vector)
    for i in range(half):
        angle = position * theta ** (-i / half)
        a, b = vector[i], vector[i + half]
        turned[i] = a * math.cos(angle) - b * math.sin(angle)
        turned[i + half] = a * math.sin(angle) + b * math.cos(angle)
    return torch.stack(turned)


def attend(block: HRMBlock, x: Tensor, theta: float) -> Tensor:
    """Causal attention of one sequence (time, hidden), head by head and query by query."""
    heads, width = block.attention.num_heads, x.shape[1] // block.attention.num_heads
    q_weight, k_weight, v_weight = block.attention.qkv.weight.chunk(3)
    rows = []
    for t in range(len(x)):
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            query = rotate(q_weight[part] @ x[t], t, theta)
            keys = torch.stack([rotate(k_weight[part] @ x[s], s, theta) for s in range(t + 1)])
            values = torch.stack([v_weight[part] @ x[s] for s in range(t + 1)])
            mixed.append((keys @ query / math.sqrt(width)).softmax(0) @ values)
        rows.append(block.attention.out.weight @ torch.cat(mixed))
    return torch.stack(rows)


def run_module(module: ReasoningModule, x: Tensor, theta: float) -> Tensor:
    for block in module.blocks:
        assert isinstance(block, HRMBlock)
        assert isinstance(block.mlp, SwiGLU)
        x = normalise(x + attend(block, x, theta), block.eps)
        gate, up = block.mlp.gate_up.weight.chunk(2)
        x = normalise(x + (F.silu(x @ gate.T) * (x @ up.T)) @ block.mlp.down.weight.T, block.eps)
    return x


def reference_logits(model: HRMForCausalLM, ids: Tensor, segments: int) -> list[Tensor]:
    """Logits of one sequence after each segment; only the last L and H update of each has a gradient."""
    config = model.config
    x = model.embed_tokens.weight[ids] * math.sqrt(config.hidden_size)
    z_h, z_l = model.h_init.expand_as(x), model.l_init.expand_as(x)
    logits = []
    for _ in range(segments):
        z_h, z_l = z_h.detach(), z_l.detach()
        for h_cycle in range(config.h_cycles):
            for l_cycle in range(config.l_cycles):
                last_l = h_cycle == config.h_cycles - 1 and l_cycle == config.l_cycles - 1
                if last_l:
                    z_h, z_l = z_h.detach(), z_l.detach()
                with torch.set_grad_enabled(last_l):
                    z_l = run_module(model.l_module, z_l + z_h + x, config.rope_theta)
            with torch.set_grad_enabled(h_cycle == config.h_cycles - 1):
                z_h = run_module(model.h_module, z_h + z_l, config.rope_theta)
        logits.append(z_h @ model.lm_head.weight.T)
    return logits


def test_logits_equal_the_reference(make_model: Any) -> None:
    model = make_model(halt_max_steps=2).eval()
    ids = torch.tensor([3, 1, 4, 1, 5])
    with torch.no_grad():
        torch.testing.assert_close(model(ids[None]).logits[0], reference_logits(model, ids, 2)[-1])


@pytest.mark.parametrize(("h_cycles", "l_cycles"), [(2, 2), (1, 1), (1, 2)])
def test_one_step_gradient_equals_the_reference(make_model: Any, h_cycles: int, l_cycles: int) -> None:
    """With few cycles the carry reaches the differentiated updates, so it must be detached by itself."""
    model = make_model(halt_max_steps=2, h_cycles=h_cycles, l_cycles=l_cycles)
    ids = torch.tensor([3, 1, 4, 1, 5])
    body = [(n, p) for n, p in model.named_parameters() if "q_head" not in n]
    fast = torch.autograd.grad(model(ids[None], labels=ids[None]).ce, [p for _, p in body])
    losses = [F.cross_entropy(logits[:-1], ids[1:]) for logits in reference_logits(model, ids, 2)]
    loss = torch.stack(losses).mean()
    slow = torch.autograd.grad(loss, [p for _, p in body])
    for (name, _), a, b in zip(body, fast, slow, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
