"""Updates of some weights, cut or stretched in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.role_plan import MEASURED
from aios.auto_lr.loop.scaled_updates import leave_updates, scale_updates
from auto_lr.readers import FACTOR, reader, updates_are_whole

# What scaling does.

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.01, momentum=0.9, weight_decay=0.1),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1),
    "fused": lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1, fused=True),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.9),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.01),
    "nadam": lambda groups: torch.optim.NAdam(groups, lr=0.01),
    "radam": lambda groups: torch.optim.RAdam(groups, lr=0.01),
    "adamax": lambda groups: torch.optim.Adamax(groups, lr=0.01),
    "adadelta": lambda groups: torch.optim.Adadelta(groups, lr=0.5),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_scaled_update_is_one_at_another_rate(kind: str) -> None:
    plain, forward = reader()
    plain_forward, (scaled, scaled_forward) = forward, reader()
    own = list(plain.memory.parameters())
    rest = [p for p in plain.parameters() if all(p is not q for q in own)]
    reference = OPTIMIZERS[kind]([{"params": own}, {"params": rest}])
    reference.param_groups[0]["lr"] *= FACTOR
    optimizer = OPTIMIZERS[kind](scaled.parameters())
    scale_updates(scaled, [optimizer], MEASURED)
    for step in range(5):
        for which, loss_of in ((reference, plain_forward), (optimizer, scaled_forward)):
            which.zero_grad()
            loss_of(step).backward()
            which.step()
    for name, weight in scaled.named_parameters():
        torch.testing.assert_close(weight, dict(plain.named_parameters())[name], rtol=1e-4, atol=1e-6)


def test_an_update_compiled_is_scaled_as_well() -> None:
    results = []
    for compiled in (False, True):
        model, forward = reader()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01))
        if compiled:
            optimizer.step = torch.compile(optimizer.step, backend="eager")  # type: ignore[method-assign]
        scale_updates(model, [optimizer], MEASURED)
        for step in range(3):
            optimizer.zero_grad()
            forward(step).backward()
            optimizer.step()
        results.append([p.detach().clone() for p in model.parameters()])
    torch.testing.assert_close(*results)


def test_scaled_twice_is_scaled_as_the_second_time_said() -> None:
    model, forward = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.memory.weight_hh_l0.detach().clone()
    forward(0).backward()
    expected = before - 0.1 * 0.5 * model.memory.weight_hh_l0.grad
    scale_updates(model, [optimizer], MEASURED)
    scale_updates(model, [optimizer], {"recurrent": 0.5})
    optimizer.step()
    torch.testing.assert_close(model.memory.weight_hh_l0.detach(), expected)
    assert not updates_are_whole(model, optimizer)
    leave_updates([optimizer])
    assert updates_are_whole(model, optimizer)


class Clamped(torch.optim.SGD):
    """Goes on with the weights after its base class's step: torch calls hooks around both."""

    def step(self, closure: Any = None) -> Any:
        super().step(closure)
        with torch.no_grad():
            for weight in self.param_groups[0]["params"]:
                weight.add_(1.0)


def test_a_step_within_a_step_is_scaled_once_and_as_a_whole() -> None:
    torch.optim.SGD([nn.Parameter(torch.zeros(1))])  # hooks its class: both are hooked now
    model, forward = reader()
    optimizer = Clamped(model.parameters(), lr=0.1)
    weight = model.memory.weight_hh_l0
    before = weight.detach().clone()
    scale_updates(model, [optimizer], MEASURED)
    forward(0).backward()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before + FACTOR * (1.0 - 0.1 * weight.grad))


def test_an_error_in_a_step_leaves_nothing_under_way() -> None:
    model, forward = reader()
    optimizer = Clamped(model.parameters(), lr=0.1)
    auto = AutoLR(model, optimizer, 300)
    auto.search(forward)
    loss = forward(0)
    loss.backward()
    optimizer.param_groups[0]["params"].append("no weight")
    with pytest.raises(AttributeError):
        auto.step(loss)
    optimizer.param_groups[0]["params"].pop()
    weight, before = model.memory.weight_hh_l0, model.memory.weight_hh_l0.detach().clone()
    loss = forward(0)
    loss.backward()
    auto.step(loss)
    assert (weight.detach() - before).mean() == pytest.approx(FACTOR, abs=1e-3)


def test_hooks_of_others_see_the_weights_as_they_stay() -> None:
    model, forward = reader()
    optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.1), []
    optimizer.register_step_post_hook(lambda *_: seen.append(model.memory.weight_hh_l0.detach().clone()))
    scale_updates(model, [optimizer], MEASURED)
    forward(0).backward()
    optimizer.step()
    assert torch.equal(seen[0], model.memory.weight_hh_l0)


def test_weights_that_join_the_optimizer_later_are_scaled_as_well() -> None:
    model, _ = reader()
    optimizer = torch.optim.SGD([*model.tokens.parameters(), *model.memory.parameters()], lr=0.1)
    model.add_module("again", nn.GRUCell(4, 4))
    scale_updates(model, [optimizer], MEASURED)
    optimizer.add_param_group({"params": list(model.again.parameters())})
    weight, before = model.again.weight_hh, model.again.weight_hh.detach().clone()
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 0.1 * FACTOR)
