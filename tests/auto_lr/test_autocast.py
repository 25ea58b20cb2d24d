"""`torch.autocast` around the search in place of the forward pass: it keeps weights that it has cast until it ends."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from auto_lr.problems import adamw, classifier, train_plainly


def bf16() -> Any:
    return torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.mark.parametrize("steps_before", [0, 200])
@pytest.mark.parametrize("how", ["search", "look"])
def test_around_a_search_it_finds_what_it_does_within(steps_before: int, how: str) -> None:
    found, losses = [], []
    for around in (False, True):
        model, forward = classifier()
        train_plainly(adamw(model, 1e-2), forward, steps_before)

        def cast(batch: int, around: bool = around, forward: Any = forward) -> Tensor:
            with nullcontext() if around else bf16():
                loss: Tensor = forward(batch)
            return loss

        auto = AutoLR(model, adamw(model), 400)
        with bf16() if around else nullcontext():
            found.append(getattr(auto, how)(cast))
            loss = cast(0)  # what was tried and taken back is not looked at again
            loss.backward()
        losses.append([loss.item(), *(p.grad.tolist() for p in model.parameters() if p.grad is not None)])
    assert found[1] == found[0]
    assert losses[1] == losses[0]
    assert len(losses[0]) == 1 + len(list(model.parameters()))


def test_a_state_that_is_brought_back_is_seen_at_once() -> None:
    model, x = nn.Linear(4, 4), torch.randn(2, 4)
    with bf16():
        before, snapshot = model(x), AutoLR(model, adamw(model), 20).engine.snapshot()
        with torch.no_grad():
            model.weight.mul_(2)
        torch.clear_autocast_cache()
        assert not torch.equal(model(x), before)
        snapshot.restore()
        assert torch.equal(model(x), before)
