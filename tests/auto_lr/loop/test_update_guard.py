"""`UpdateGuard`: updates of a framework that are left out, with and without a fused optimizer and a loss scale."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from aios.auto_lr.loop.update import UpdateGuard


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scaled", [True, False])
def test_an_update_is_left_out_whole(fused: bool, scaled: bool) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=4, enabled=scaled)
    guard = UpdateGuard(optimizer, scaler)

    def step(skip: bool, factor: float = 1.0) -> bool:
        before = [p.detach().clone() for p in model.parameters()]
        scaler.scale(model(torch.ones(4, 3)).square().mean() * factor).backward()
        scaler.unscale_(optimizer)
        guard.leave_out(torch.tensor(skip))
        scaler.step(optimizer)
        scaler.update()
        guard.done()
        optimizer.zero_grad()
        return any(not torch.equal(p, b) for p, b in zip(model.parameters(), before, strict=True))

    assert step(False)
    counts = [float(state["step"]) for state in optimizer.state.values()]
    assert not step(True)
    assert [float(state["step"]) for state in optimizer.state.values()] == counts
    assert step(False)
    assert not hasattr(optimizer, "found_inf")
    if scaled:
        scale = scaler.get_scale()
        assert not step(False, math.inf)  # an overflow is the scaler's business, and lowers the scale
        assert scaler.get_scale() == scale / 2
        assert step(False)
