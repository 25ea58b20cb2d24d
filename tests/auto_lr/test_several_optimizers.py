"""Several optimizers under one master rate, and optimizers that keep more than torch knows of."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import Forward, adamw, classifier, fingerprint, train


def muon_and_adamw(model: nn.Module, lr: float = 1e-3) -> list[torch.optim.Optimizer]:
    """Muon on the matrices, AdamW on the rest at a third of its rate."""
    matrices = [p for p in model.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim != 2]
    return [
        torch.optim.Muon(matrices, lr=lr, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=lr / 3, betas=(0.9, 0.95)),
    ]


def states(model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> list[Any]:
    return [fingerprint(model, optimizer) for optimizer in optimizers]


def test_every_group_keeps_its_ratio_to_the_master_rate() -> None:
    model, forward = classifier()
    optimizers = muon_and_adamw(model)
    auto = AutoLR(model, optimizers, 400)
    auto.search(forward)
    climbing = set()
    for _ in range(200):
        climbing.add(auto.climbing)
        loss = forward(auto.batch)
        loss.backward()
        lr = auto.before_step()
        assert [o.param_groups[0]["lr"] for o in optimizers] == [lr, pytest.approx(lr / 3)]
        auto.after_step(loss, auto.engine.update(loss, auto.skip_above))
    assert climbing == {True, False}


def test_muon_beside_adamw_learns_from_any_start() -> None:
    ends, rates = [], []
    for start in (1e-6, 1e-1):
        model, forward = classifier()
        auto = AutoLR(model, muon_and_adamw(model, start), 400)
        auto.search(forward)
        losses, _ = train(auto, forward)
        assert auto.control is not None
        assert auto.control.bounds is not None
        rates.append(auto.control.plan.base_lr)
        ends.append(sum(losses[-20:]) / 20)
    assert rates[0] == pytest.approx(rates[1])
    assert max(ends) < 0.3 * 2.3


def test_the_search_leaves_no_trace_in_any_of_them() -> None:
    model, forward = classifier(dropout=0.2)
    optimizers = muon_and_adamw(model)
    train_a_little(model, optimizers, forward)
    before = states(model, optimizers)
    assert AutoLR(model, optimizers, 400).look(forward).lr is not None
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.pop("initial_lr")
            group.pop("lr_written")
    assert strip(states(model, optimizers)) == strip(before)


def train_a_little(model: nn.Module, optimizers: list[torch.optim.Optimizer], forward: Forward) -> None:
    for batch in range(3):
        forward(batch).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()


def strip(found: list[Any]) -> list[Any]:
    ours = ("initial_lr", "lr_written")
    return [[weights, state, [{k: v for k, v in g.items() if k not in ours} for g in groups]]
            for weights, state, groups in found]  # fmt: skip


def test_a_run_saved_and_gone_on_with_ends_as_if_it_had_not_been() -> None:
    model, forward = classifier()
    optimizers = muon_and_adamw(model)
    straight = AutoLR(model, optimizers, 300)
    straight.search(forward)
    while straight.step_count < 120:
        loss = forward(straight.batch)
        loss.backward()
        straight.step(loss)
    saved = copy.deepcopy(
        [straight.state_dict(), model.state_dict(), *(optimizer.state_dict() for optimizer in optimizers)]
    )
    ends = train(straight, forward), states(model, optimizers)

    model, forward = classifier()
    optimizers = muon_and_adamw(model)
    model.load_state_dict(saved[1])
    for optimizer, state in zip(optimizers, saved[2:], strict=True):
        optimizer.load_state_dict(state)
    resumed = AutoLR(model, optimizers, 300)
    resumed.load_state_dict(saved[0])
    assert (train(resumed, forward), states(model, optimizers)) == ends


class Lookahead(torch.optim.Optimizer):
    """Slow weights beside the fast ones (arXiv 1907.08610), in an attribute that torch knows nothing of."""

    def __init__(self, inner: torch.optim.Optimizer, every: int = 3) -> None:
        super().__init__([p for g in inner.param_groups for p in g["params"]], {"lr": inner.param_groups[0]["lr"]})
        self.inner, self.every, self.calls = inner, every, 0
        self.param_groups = inner.param_groups
        self.slow = {id(p): p.detach().clone() for g in inner.param_groups for p in g["params"]}

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        self.calls += 1
        if self.calls % self.every:
            return
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    self.slow[id(p)].lerp_(p, 0.5)
                    p.copy_(self.slow[id(p)])


def test_what_a_wrapper_keeps_for_itself_comes_back_too() -> None:
    model, forward = classifier()
    wrapper = Lookahead(adamw(model))

    def seen() -> list[Any]:
        slow = [t.tolist() for t in wrapper.slow.values()]
        return [slow, wrapper.calls, fingerprint(model, wrapper.inner)]

    train_a_little(model, [wrapper], forward)
    before, snapshot = seen(), Snapshot(model, wrapper)
    for _ in range(2):
        train_a_little(model, [wrapper], forward)
        assert seen() != before
        snapshot.restore()
        assert seen() == before


def test_auto_lr_searches_and_trains_through_a_wrapper() -> None:
    model, forward = classifier()
    auto = AutoLR(model, Lookahead(adamw(model)), 400)
    auto.search(forward)
    losses, _ = train(auto, forward)
    assert auto.control is not None
    assert auto.control.bounds is not None
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])


class Opaque:
    """Keeps a tensor where nobody can see it."""

    __slots__ = ("average",)

    def __init__(self, average: Tensor) -> None:
        self.average = average


def test_state_that_cannot_be_copied_is_refused_by_name() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    optimizer.averager = Opaque(torch.zeros(3))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"AdamW.averager \(a Opaque\) cannot be copied"):
        AutoLR(model, optimizer, 400).search(forward)


def test_a_group_that_joins_the_first_of_several_optimizers_keeps_its_own_ratio() -> None:
    model, forward = classifier()
    first, last = model[0], model[3]
    one = torch.optim.SGD([first.weight], lr=0.1)
    other = torch.optim.SGD(last.parameters(), lr=0.01)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, [one, other], 80, log_fn=events.append)
    for step in range(80):
        if step == 20:
            one.add_param_group({"params": [first.bias], "lr": 0.05})
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        rates = [group["lr"] for optimizer in (one, other) for group in optimizer.param_groups]
        ratios = [rate / rates[0] for rate in rates]  # a decision may just have moved all of them
        assert ratios == pytest.approx([1, 0.5, 0.1] if step >= 20 else [1, 0.1])
    (told,) = (event for event in events if event["event"] == "adaptive_lr_group")
    assert (told["step"], told["group"], told["ratio"]) == (21, 1, pytest.approx(0.5))
    assert not [event for event in events if event["event"] == "adaptive_lr_trouble"]
    assert [event for event in events if event["event"] == "adaptive_lr_adjustment"]
