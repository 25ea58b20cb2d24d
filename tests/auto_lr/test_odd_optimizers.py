"""Optimizers that do not update the weights as torch's own do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import Forward, classifier, train, train_plainly
from auto_lr.searches import of


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation as it is copied everywhere (github.com/davda54/sam): two steps in place of one, and
    the weights are put back by another tensor (`swaps`), or in place."""

    def __init__(self, params: Any, swaps: bool, rho: float = 0.05, **settings: Any) -> None:
        super().__init__(params, {"rho": rho, **settings})
        self.base_optimizer, self.swaps = torch.optim.SGD(self.param_groups, **settings), swaps
        self.param_groups = self.base_optimizer.param_groups

    @torch.no_grad()
    def first_step(self) -> None:
        """Climb to where the loss is higher."""
        weights = [p for group in self.param_groups for p in group["params"]]
        norm = torch.stack([p.grad.norm() for p in weights]).norm()
        for p in weights:
            self.state[p]["old_p"] = p.data.clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / (norm + 1e-12)))
        self.zero_grad()

    @torch.no_grad()
    def second_step(self) -> None:
        """Go back, and update by the gradient of up there."""
        for group in self.param_groups:
            for p in group["params"]:
                if self.swaps:
                    p.data = self.state[p]["old_p"]
                else:
                    p.data.copy_(self.state[p]["old_p"])
        self.base_optimizer.step()


def train_with(sam: Sam, auto: AutoLR, forward: Forward) -> float:
    """The last loss of a run with the four calls."""
    while not auto.finished:
        auto.before_step()
        loss = forward(auto.batch)
        loss.backward()
        sam.first_step()
        forward(auto.batch).backward()
        norm = nn.utils.clip_grad_norm_(auto.model.parameters(), 1.0)
        if not auto.skips(loss, norm):
            sam.second_step()
        sam.zero_grad()
        auto.after_step(loss, norm)
    return float(loss.detach())


def test_weights_that_are_swapped_for_others_are_measured_as_those_changed_in_place() -> None:
    told: list[Any] = []
    for swaps in (False, True):
        model, forward = classifier()
        sam, events = Sam(model.parameters(), swaps, lr=0.1, momentum=0.9), list[dict[str, Any]]()
        auto = AutoLR(model, sam, 400, log_fn=events.append)
        auto.search()
        told.append((train_with(sam, auto, forward), of(events, "adaptive_lr_climb")))
    assert told[1] == told[0]
    assert told[0][0] < 1.0


class Replacing(torch.optim.Optimizer):
    """Plain SGD that puts new tensors in the place of the weights."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                p.data = p.data - group["lr"] * p.grad


def test_a_look_and_a_climb_see_what_such_an_optimizer_moves() -> None:
    ends: list[Any] = []
    for make in (lambda p: torch.optim.SGD(p, lr=0.1), Replacing):
        model, forward = classifier()
        looked = AutoLR(model, make(model.parameters()), 400).look(forward)
        auto = AutoLR(model, make(model.parameters()), 400)
        auto.search(forward)
        ends.append((looked.lr, train(auto, forward)[0][-1]))
    assert ends[1] == pytest.approx(ends[0])


class DAdapt(torch.optim.SGD):
    """Has the entries in its param groups that the optimizers of D-Adaptation have."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, lr=1.0)
        for group in self.param_groups:
            group.update(d=1e-6, k=0, numerator_weighted=0.0)


def prodigy(params: Any) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = pytest.importorskip("prodigyopt").Prodigy(params)
    return made


@pytest.mark.parametrize("make", [prodigy, DAdapt])
@pytest.mark.parametrize("profile", ["auto", "rules"])
def test_an_optimizer_that_finds_its_own_step_size_is_refused(make: Any, profile: Any) -> None:
    model, _ = classifier()
    with pytest.raises(ValueError, match=r"^(Prodigy|DAdapt) cannot be steered: it finds its own step size; .*fixed"):
        AutoLR(model, make(model.parameters()), 100, AutoLRConfig(profile=profile))


def test_at_a_fixed_rate_it_trains_as_without_us() -> None:
    ends = []
    for plain in (True, False):
        model, forward = classifier()
        optimizer = prodigy(model.parameters())
        config = AutoLRConfig(profile="fixed", warmup_steps=0, max_grad_norm=math.inf)
        auto = AutoLR(model, optimizer, 100, config)
        losses = train_plainly(optimizer, forward, 100) if plain else train(auto, forward)[0]
        ends.append(losses)
    assert ends[1] == ends[0]
    assert ends[0][-1] < 0.5 * ends[0][0]
