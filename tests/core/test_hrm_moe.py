"""Mixture of experts: routing, the balance loss, and gradients that reach router and experts."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMConfig
from aios.core.hrm_models.moe import MoEMLP, load_balancing_loss
from dense_experts import DenseMoEMLP

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


def test_grouped_products_equal_each_token_by_itself_in_value_and_gradient(layer: MoEMLP) -> None:
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


def dense_twin(layer: MoEMLP) -> MoEMLP:
    """The same weights, computed the plain way."""
    twin = copy.deepcopy(layer)
    twin.__class__ = DenseMoEMLP
    return twin


def values_and_gradients(layer: MoEMLP, x: Tensor) -> dict[str, Tensor]:
    """Output, balance loss, and the gradients that both give to input and weights."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    output, balance = layer(x, torch.ones(x.shape[:-1], dtype=torch.bool))
    assert balance is not None
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(5))
    ((output.float() * target).sum() + balance).backward()
    assert x.grad is not None
    gradients = {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    assert len(gradients) == 3
    return {"output": output.detach(), "balance": balance.detach(), "input": x.grad, **gradients}


def assert_equal_to_dense(layer: MoEMLP, x: Tensor, **tolerance: float) -> dict[str, Tensor]:
    found, expected = values_and_gradients(layer, x), values_and_gradients(dense_twin(layer), x)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)
    return found


def make_layer(hidden: int = 16, **overrides: Any) -> MoEMLP:
    torch.manual_seed(0)
    return MoEMLP(HRMConfig(**{"hidden_size": hidden, "num_heads": 1, "use_moe": True, **overrides}))


@pytest.mark.parametrize(("experts", "top_k"), [(4, 2), (8, 1), (5, 3), (3, 3), (1, 1)])
def test_grouped_equals_dense(experts: int, top_k: int) -> None:
    layer = make_layer(num_experts=experts, num_experts_per_tok=top_k)
    assert_equal_to_dense(layer, torch.randn(3, 20, 16), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("top_k", [1, 2])
def test_one_expert_may_get_all_tokens_and_others_none(top_k: int) -> None:
    layer = make_layer(num_experts=4, num_experts_per_tok=top_k)
    x = torch.randn(2, 9, 16)
    x[..., 0] = 9.0
    with torch.no_grad():
        layer.router.weight[:, 0] = torch.tensor([0.0, 1.0, 7.0, 0.0])  # the third, then the second
    found = assert_equal_to_dense(layer, x, rtol=1e-4, atol=2e-5)
    got_gradient = [bool(rows.any()) for rows in found["gate_up.weight"].chunk(4)]
    assert got_gradient == [False, top_k == 2, True, False]


def test_bf16_agrees_to_its_precision() -> None:
    layer = make_layer().to(torch.bfloat16)
    assert_equal_to_dense(layer, torch.randn(3, 20, 16, dtype=torch.bfloat16), rtol=0.05, atol=0.2)


@pytest.mark.parametrize(("hidden", "dtype"), [(6, torch.float32), (12, torch.bfloat16)])
def test_widths_that_the_kernel_does_not_take(hidden: int, dtype: torch.dtype) -> None:
    tolerance = {"rtol": 1e-4, "atol": 2e-5} if dtype is torch.float32 else {"rtol": 0.05, "atol": 0.2}
    assert_equal_to_dense(make_layer(hidden).to(dtype), torch.randn(2, 20, hidden, dtype=dtype), **tolerance)


def test_a_build_of_torch_without_the_grouped_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(F, "grouped_mm", raising=False)
    layer = make_layer(num_experts=8, num_experts_per_tok=1)
    assert_equal_to_dense(layer, torch.randn(1, 5, 16), rtol=1e-4, atol=2e-5)


def test_under_autocast_the_largest_activations_are_bf16(layer: MoEMLP) -> None:
    x = torch.randn(2, 32, 16)
    largest = x.shape[0] * x.shape[1] * TOP_K * layer.gate_up.out_features // EXPERTS // 2
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), torch.autocast("cpu", torch.bfloat16):
        output, _ = layer(x, None)
    activations = [t for t in kept if t.numel() >= largest and not isinstance(t, torch.nn.Parameter)]
    assert len(activations) >= 4
    assert {t.dtype for t in activations} == {torch.bfloat16}
    torch.testing.assert_close(output.float(), layer(x, None)[0], rtol=0.05, atol=0.05)
    output.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in layer.parameters())


def test_adapters_count_as_in_the_merged_weights(layer: MoEMLP) -> None:
    peft = pytest.importorskip("peft")
    adapted = copy.deepcopy(layer)
    settings = peft.LoraConfig(r=2, lora_alpha=6, target_modules=["gate_up", "down"])
    peft.inject_adapter_in_model(settings, adapted)
    merged = copy.deepcopy(layer)
    for name in ("gate_up", "down"):
        tuner = getattr(adapted, name)
        torch.nn.init.normal_(tuner.lora_B["default"].weight)
        with torch.no_grad():
            getattr(merged, name).weight += tuner.get_delta_weight("default")
    x = torch.randn(2, 5, 16)
    output, _ = adapted(x, None)
    torch.testing.assert_close(output, merged(x, None)[0], rtol=1e-4, atol=1e-5)
    output.sum().backward()
    trained = [p.grad for p in adapted.parameters() if p.requires_grad]
    assert len(trained) == 4
    assert all(gradient is not None and gradient.any() for gradient in trained)
    adapted.gate_up.enable_adapters(False)
    adapted.down.enable_adapters(False)
    torch.testing.assert_close(adapted(x, None)[0], layer(x, None)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_it_computes_the_same(layer: MoEMLP, dtype: torch.dtype) -> None:
    layer = layer.to(dtype)
    expected = values_and_gradients(layer, torch.ones(1, 8, 16, dtype=dtype))
    layer.compile(backend="aot_eager")
    found = values_and_gradients(layer, torch.ones(1, 8, 16, dtype=dtype))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_weights_are_kept_as_they_always_were(layer: MoEMLP) -> None:
    width = layer.down.in_features
    shapes = {name: tuple(tensor.shape) for name, tensor in layer.state_dict().items()}
    assert shapes == {"router.weight": (4, 16), "gate_up.weight": (2 * width, 16), "down.weight": (16, width)}
    assert width == 4 * 256


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
