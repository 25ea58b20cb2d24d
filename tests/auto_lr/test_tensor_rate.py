"""A learning rate that is a tensor: compiled and captured updates read it, so that it is written to, never replaced."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import classifier, train, train_plainly

RATE = 1e-2


def tensor_adamw(model: nn.Module) -> tuple[torch.optim.Optimizer, Tensor]:
    """AdamW whose rate is a tensor, and that tensor."""
    rate = torch.tensor(RATE)
    return torch.optim.AdamW(model.parameters(), lr=rate, foreach=False), rate


def test_a_compiled_update_is_compiled_once_and_sees_every_rate() -> None:
    """Traced for real, but with nothing generated: no C++ compiler is needed."""
    trained = []
    for compiled in (False, True):
        torch._dynamo.reset()
        model, forward = classifier()
        optimizer, rate = tensor_adamw(model)
        auto, traced = AutoLR(model, optimizer, 60, AutoLRConfig(warmup_steps=20)), CompileCounter()
        if compiled:
            optimizer.step = torch.compile(optimizer.step, backend=traced)  # type: ignore[method-assign]
        rates = [auto.step(_backward(forward(i))) for i in range(5)]
        before = traced.frame_count
        rates += [auto.step(_backward(forward(i))) for i in range(5, 60)]
        assert traced.frame_count == before
        assert (before > 0) == compiled
        assert optimizer.param_groups[0]["lr"] is rate
        assert len(set(rates)) > 20
        assert float(rate) == pytest.approx(rates[-1])
        trained.append([parameter.detach() for parameter in model.parameters()])
    torch.testing.assert_close(*trained)


def _backward(loss: Tensor) -> Tensor:
    loss.backward()
    return loss


def test_a_search_and_a_resumed_run_write_into_the_same_tensor() -> None:
    model, forward = classifier()
    optimizer, rate = tensor_adamw(model)
    auto = AutoLR(model, optimizer, 200)
    auto.search(forward)
    train(auto, forward)
    assert optimizer.param_groups[0]["lr"] is rate

    other, again = tensor_adamw(model)
    resumed = AutoLR(model, other, 220)
    resumed.load_state_dict(copy.deepcopy(auto.state_dict()))
    lr = resumed.before_step()
    assert other.param_groups[0]["lr"] is again
    assert float(again) == pytest.approx(lr)


def test_after_a_scheduler_of_torch_the_rates_are_numbers() -> None:
    """Theirs leaves a tensor in `initial_lr`, which could lie on an accelerator."""
    model, forward = classifier()
    optimizer, rate = tensor_adamw(model)
    torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 10, log_fn=events.append)
    assert all(type(lr) is float for lr in train(auto, forward)[1])
    assert optimizer.param_groups[0]["lr"] is rate


def test_a_rewind_brings_moments_back_in_place() -> None:
    """A captured update goes on with the tensors that it was captured with."""
    model, forward = classifier()
    optimizer, _ = tensor_adamw(model)
    train_plainly(optimizer, forward, 2)
    held = [value for own in optimizer.state.values() for value in own.values()]
    before = copy.deepcopy(held)
    snapshot = Snapshot(model, optimizer)
    for _ in range(2):
        train_plainly(optimizer, forward, 3)
        snapshot.restore()
        assert all(a is b for a, b in zip(_moments(optimizer), held, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(held, before, strict=True))


def _moments(optimizer: torch.optim.Optimizer) -> list[Any]:
    return [value for own in optimizer.state.values() for value in own.values()]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_update_follows_the_rate() -> None:
    """With gradients that stay 1, and no decay, an update of AdamW is the learning rate."""
    model = nn.Linear(4, 1, bias=False, device="cuda")
    model.weight.grad = torch.ones_like(model.weight)
    rate = torch.tensor(RATE, device="cuda")
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0, capturable=True)
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        optimizer.step()  # makes the moments, which belong to no graph
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()

    auto = AutoLR(model, optimizer, 20, AutoLRConfig(profile="fixed", warmup_steps=10))
    rates, moved = [], []
    for _ in range(20):
        before = model.weight.detach().clone()
        rates.append(auto.before_step())
        graph.replay()
        auto.after_step(torch.ones((), device="cuda"), torch.ones((), device="cuda"))
        moved.append(float((before - model.weight.detach()).mean()))
    assert len(set(rates)) == 10
    assert moved == pytest.approx(rates, rel=1e-3)
    assert optimizer.param_groups[0]["lr"] is rate
