"""Mixture of experts: routing, the balance loss, and gradients that reach router and experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMConfig
from aios.core.hrm_models.moe import MoEMLP, load_balancing_loss

EXPERTS, TOP_K = 4, 2


@pytest.fixture
def layer() -> MoEMLP:
    torch.manual_seed(0)
    return MoEMLP(HRMConfig(hidden_size=16, num_heads=2, use_moe=True, num_experts=EXPERTS, num_experts_per_tok=TOP_K))


def sparse_reference(layer: MoEMLP, token: Tensor) -> Tensor:
    """One token through its chosen experts only, each a separate SwiGLU."""
    probs = (layer.router.weight @ token).softmax(0)
    best = probs.topk(TOP_K)
    result = torch.zeros_like(token)
    for share, expert in zip(best.values / best.values.sum(), best.indices.tolist(), strict=True):
        gate, up = layer.gate_up.weight.chunk(EXPERTS)[expert].chunk(2)
        down = layer.down.weight.chunk(EXPERTS, dim=1)[expert]
        result = result + share * (down @ (F.silu(gate @ token) * (up @ token)))
    return result


def test_wide_product_equals_sparse_dispatch_in_value_and_gradient(layer: MoEMLP) -> None:
    x = torch.randn(2, 5, 16)
    fast, _ = layer(x, None)
    slow = torch.stack([sparse_reference(layer, token) for token in x.flatten(0, 1)]).view_as(x)
    torch.testing.assert_close(fast, slow)
    target = torch.randn_like(x)
    parameters = list(layer.parameters())
    for fast_grad, slow_grad in zip(
        torch.autograd.grad((fast * target).sum(), parameters),
        torch.autograd.grad((slow * target).sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(fast_grad, slow_grad, rtol=1e-4, atol=1e-5)


def test_balance_loss_is_one_when_balanced_and_experts_over_k_when_collapsed() -> None:
    counted = torch.ones(EXPERTS, dtype=torch.bool)
    balanced = load_balancing_loss(torch.full((EXPERTS, EXPERTS), 1 / EXPERTS), torch.eye(EXPERTS), counted)
    assert balanced.item() == pytest.approx(1.0)
    collapsed = torch.tensor([[0.5, 0.5, 0.0, 0.0]]).expand(EXPERTS, EXPERTS)
    assert load_balancing_loss(collapsed, (collapsed > 0).float(), counted).item() == pytest.approx(EXPERTS / TOP_K)


def test_balance_loss_skips_padding() -> None:
    probs = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    chosen = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    counted = torch.tensor([True, False])
    assert load_balancing_loss(probs, chosen, counted).item() == pytest.approx(2 * 0.9)


def test_balance_loss_alone_reaches_every_router_row(make_model: Any, tokens: Tensor) -> None:
    model = make_model(use_moe=True, num_experts=EXPERTS, num_experts_per_tok=TOP_K)
    model(tokens, labels=tokens).lb_loss.backward()
    routers = [(name, p) for name, p in model.named_parameters() if "router" in name]
    assert len(routers) == model.config.h_layers + model.config.l_layers
    for name, parameter in routers:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum(1).gt(0).all(), name


def test_every_expert_gets_a_gradient(make_model: Any) -> None:
    model = make_model(use_moe=True, num_experts=EXPERTS, num_experts_per_tok=TOP_K)
    ids = torch.randint(0, model.config.vocab_size, (4, 32))
    model(ids, labels=ids).loss.backward()
    for module in model.modules():
        if isinstance(module, MoEMLP):
            assert module.gate_up.weight.grad is not None
            assert module.down.weight.grad is not None
            for rows in module.gate_up.weight.grad.chunk(EXPERTS):
                assert rows.abs().sum() > 0
            for columns in module.down.weight.grad.chunk(EXPERTS, dim=1):
                assert columns.abs().sum() > 0


def test_descending_the_balance_loss_balances_a_collapsed_router(layer: MoEMLP) -> None:
    x = torch.randn(1, 256, 16)
    x[..., 0] = 3.0
    with torch.no_grad():
        layer.router.weight[:TOP_K, 0] += 1.0
    counted = torch.ones(1, 256, dtype=torch.bool)
    optimizer = torch.optim.SGD([layer.router.weight], lr=0.5)
    history = []
    for _ in range(60):
        balance = layer(x, counted)[1]
        assert balance is not None
        history.append(balance.item())
        optimizer.zero_grad()
        balance.backward()
        optimizer.step()
    assert history[0] > 1.5
    assert history[-1] < 1.1


def test_balance_loss_is_the_same_call_after_call(make_model: Any, tokens: Tensor) -> None:
    model = make_model(use_moe=True)
    first, second = (model(tokens, labels=tokens).lb_loss for _ in range(2))
    assert torch.equal(first, second)
    assert model.eval()(tokens, labels=tokens).lb_loss is None


def test_router_is_fp32_under_autocast(layer: MoEMLP) -> None:
    x = torch.randn(1, 4, 16)
    exact = layer.route(x)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer.route(x)[0], exact)
