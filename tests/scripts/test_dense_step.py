"""What a step of the model is held against in its benchmark: the bare loop computes the same, no product is missed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils.flop_counter import FlopCounterMode

import bench_hrm
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from dense_step import PlainLoop, Products

MOE = {"use_moe": True, "num_experts": 4, "num_experts_per_tok": 2}
IDS = torch.randint(0, 53, (2, 12), generator=torch.Generator().manual_seed(1))


def make_model(**overrides: Any) -> HRMForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_heads": 2, "h_layers": 2, "l_layers": 1, "l_cycles": 3, "halt_max_steps": 2}
    return HRMForCausalLM(HRMConfig(vocab_size=53, max_position_embeddings=32, **{**shape, **overrides})).train()


def counted(call: Any) -> tuple[int, int]:
    """Floating point operations of the products that are counted here, and of those that torch counts."""
    with Products() as products, FlopCounterMode(display=False) as torchs:
        call()
    counts = products.counts.items()
    ours = sum(2 * math.prod(left.shape) * right.shape[-1] * times for (left, right), times in counts)
    return ours, torchs.get_total_flops()


@pytest.mark.parametrize("kind", [{}, {"shared_stack": True, "h_layers": 1}, MOE], ids=["dense", "shared", "moe"])
def test_the_bare_loop_has_the_gradient_of_the_model(kind: dict[str, Any]) -> None:
    model = make_model(**kind, q_loss_coef=0.0)
    body = [param for name, param in model.named_parameters() if "q_head" not in name]
    expected = torch.autograd.grad(model(IDS, labels=IDS).ce, body)
    torch.nn.init.zeros_(model.q_head.weight)  # so that its loss reaches nothing but itself
    plain = torch.autograd.grad(PlainLoop(model)(IDS, labels=IDS).loss, body)
    for ours, theirs in zip(plain, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [{}, MOE], ids=["dense", "moe"])
def test_the_bare_loop_makes_the_same_products(kind: dict[str, Any]) -> None:
    counts = []
    for model in (make_model(**kind), make_model(**kind)):
        module = PlainLoop(model) if counts else model
        with Products() as products:
            module(IDS, labels=IDS).loss.backward()
        counts.append(products.counts.total())
    assert counts[0] == counts[1]


def test_each_product_of_forward_and_backward_is_counted() -> None:
    model = make_model()
    ours, torchs = counted(lambda: model(IDS, labels=IDS).loss.backward())
    scores = 2 * IDS.numel() * IDS.shape[1] * model.config.hidden_size  # of one attention, all heads, without a mask
    applied, differentiated = 2 * (2 * 3 + 2 * 2), 2 * (1 + 2)
    # Torch counts no attention on a CPU. It is 2 products forward and 5 backward, of which the mask leaves a half.
    assert ours == torchs + scores // 2 * (2 * applied + 5 * differentiated)


def test_products_with_experts_are_one_for_each_expert() -> None:
    rows, matrices = torch.randn(24, 8, requires_grad=True), torch.randn(3, 8, 16, requires_grad=True)
    with Products() as products:
        F.grouped_mm(rows, matrices, offs=torch.tensor([8, 16, 24], dtype=torch.int32)).square().sum().backward()
    assert sorted((left.shape, right.shape, times) for (left, right), times in products.counts.items()) == [
        ((8, 8), (8, 16), 3),  # forward
        ((8, 8), (8, 16), 3),  # of the weights, the first transposed
        ((8, 16), (16, 8), 3),  # of the rows
    ]


def test_products_alone_are_those_that_were_counted() -> None:
    with Products() as first:
        torch.randn(3, 4) @ torch.randn(5, 4).t() @ torch.randn(5, 3)
        torch.randn(3, 4) @ torch.randn(5, 4).t()
    alone = first.alone()
    with Products() as again:
        alone()
    assert again.counts == first.counts
    assert again.counts.total() == 3


def test_a_step_is_measured_beside_both_and_misses_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_hrm, "STEP_BATCH", (1, 8))
    monkeypatch.setattr(bench_hrm, "STEP_TURNS", 1)
    row = bench_hrm.measure_step("tiny", 0, 1)
    assert 0 < row["tokens_per_s"] < row["limit_tokens_per_s"]
    assert row["limit_to_time"] == pytest.approx(row["tokens_per_s"] / row["limit_tokens_per_s"])
    good = {**row, "time_to_plain": 1.0, "limit_to_time": 0.8}
    assert not bench_hrm.misses(good)
    assert not bench_hrm.misses({**good, "experts": 4, "limit_to_time": 0.1})
    assert bench_hrm.misses({**good, "time_to_plain": 1.1})
    assert bench_hrm.misses({**good, "limit_to_time": 0.7})
