"""Optimizers that keep modules, and a manager that all of a process share, as bitsandbytes' 8-bit ones do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import classifier, fingerprint, sgd, train, train_plainly


class Manager:
    """One for the whole process: what somebody has said of the layers of any model."""

    _instance: Manager | None = None

    def __init__(self) -> None:
        self.overrides: list[tuple[nn.Module, str, dict[str, int]]] = []
        self.pages: list[Tensor] = []

    @classmethod
    def get_instance(cls) -> Manager:
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance


@pytest.fixture
def manager() -> Any:
    yield Manager.get_instance()
    Manager._instance = None


class EightBit(torch.optim.Optimizer):
    """SGD whose momentum is kept in 8 bits and one scale; biases, as the manager says, in 32."""

    def __init__(self, model: nn.Module, lr: float = 1e-2) -> None:
        super().__init__(model.parameters(), {"lr": lr})
        self.manager, self.ready, self.in_full = Manager.get_instance(), False, set[int]()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        if not self.ready:
            self.in_full = {id(getattr(module, name)) for module, name, _ in self.manager.overrides}
            self.ready = True
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            state, full = self.state[p], id(p) in self.in_full
            if not state:
                state.update(momentum=torch.zeros_like(p, dtype=None if full else torch.int8), scale=torch.ones(()))
            momentum = state["momentum"].float() * state["scale"] * 0.9 + p.grad
            scale = torch.ones(()) if full else momentum.abs().max() / 127
            state["momentum"].copy_(momentum / scale if full else (momentum / scale.clamp_min(1e-30)).round())
            state["scale"].copy_(scale)
            p.sub_(momentum, alpha=self.param_groups[0]["lr"])


def registered(manager: Manager, model: nn.Module) -> None:
    manager.overrides += [(layer, "bias", {"bits": 32}) for layer in model if isinstance(layer, nn.Linear)]


def test_eight_bit_state_comes_back_bit_for_bit(manager: Manager) -> None:
    model, forward = classifier()
    registered(manager, model)
    optimizer = EightBit(model)
    for trained_before in (0, 4):
        train_plainly(optimizer, forward, trained_before)
        snapshot, before = Snapshot(model, optimizer), (fingerprint(model, optimizer), optimizer.ready)
        first = train_plainly(optimizer, forward, 5)
        assert fingerprint(model, optimizer) != before[0]
        snapshot.restore()
        assert (fingerprint(model, optimizer), optimizer.ready) == before
        assert train_plainly(optimizer, forward, 5) == first
        snapshot.restore()


def test_a_search_and_a_run_with_eight_bits(manager: Manager) -> None:
    model, forward = classifier()
    registered(manager, model)
    auto = AutoLR(model, EightBit(model), 200)
    auto.search(forward)
    losses, _ = train(auto, forward)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_the_layers_of_another_model_are_left_to_it(manager: Manager) -> None:
    (model, _), (other, its_forward) = classifier(), classifier(seed=1)
    registered(manager, other)
    optimizer = EightBit(model)
    snapshot = Snapshot(model, optimizer)
    train_plainly(sgd(other), its_forward, 3)
    manager.pages.append(torch.ones(3))
    trained = [p.tolist() for p in other.parameters()]
    snapshot.restore()
    assert [p.tolist() for p in other.parameters()] == trained
    assert len(manager.pages) == 1


def test_what_lies_in_a_tuple_comes_back_too() -> None:
    model, forward = classifier()
    optimizer = sgd(model)
    average, projection = torch.zeros(2), nn.Linear(2, 2)
    optimizer.beside = (average, {"count": [0]}, (model, projection))  # type: ignore[attr-defined]
    before = projection.weight.tolist()
    snapshot, trained = Snapshot(model, optimizer), fingerprint(model, optimizer)
    for _ in range(2):
        train_plainly(optimizer, forward, 2)
        average.add_(1)
        optimizer.beside[1]["count"][0] += 1  # type: ignore[attr-defined]
        nn.init.ones_(projection.weight)
        snapshot.restore()
        assert optimizer.beside[0] is average  # type: ignore[attr-defined]
        assert average.tolist() == [0, 0]
        assert optimizer.beside[1] == {"count": [0]}  # type: ignore[attr-defined]
        assert projection.weight.tolist() == before
        assert fingerprint(model, optimizer) == trained
