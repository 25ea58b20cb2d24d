"""A model of which other optimizers train a part: actor and critic, weights of the loss, an average of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from auto_lr.problems import adamw, train_plainly

Losses = Callable[[int], tuple[Tensor, Tensor]]
STEPS = 300


def actor_critic() -> tuple[nn.ModuleDict, Losses]:
    torch.manual_seed(0)
    actor = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 10))
    critic = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 1))

    def losses(batch: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch))
        return F.cross_entropy(actor(x), x[:, :10].argmax(1)), F.mse_loss(critic(x), x.sin().sum(1, keepdim=True))

    return nn.ModuleDict({"actor": actor, "critic": critic}), losses


def adam(part: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(part.parameters(), 1e-3)


def plain(part: nn.Module) -> list[Any]:
    return [weight.tolist() for weight in part.parameters()]


def alone(name: str, trained_before: int = 0) -> list[Any]:
    """The weights of a part after a run of it alone, by itself and by AutoLR."""
    whole, losses = actor_critic()
    place, part = list(whole).index(name), whole[name]
    train_plainly(adam(part), lambda i: losses(i)[place], trained_before)
    auto = AutoLR(part, adam(part), STEPS)
    auto.search(lambda i: losses(i)[place])
    while not auto.finished:
        loss = losses(auto.batch)[place]
        loss.backward()
        auto.step(loss)
    return plain(part)


@pytest.mark.parametrize("trained_before", [0, 200])
def test_two_on_one_model_each_train_their_part_as_if_alone(trained_before: int) -> None:
    whole, losses = actor_critic()
    for place, name in enumerate(whole):
        train_plainly(adam(whole[name]), lambda i, place=place: losses(i)[place], trained_before)  # type: ignore[misc]
    first, second = (AutoLR(whole, adam(whole[name]), STEPS) for name in ("actor", "critic"))
    first.search(lambda i: losses(i)[0])
    second.search(lambda i: losses(i)[1])
    while not first.finished:
        one, other = losses(first.batch)
        (one + other).backward()
        first.step(one)
        second.step(other)
    assert plain(whole["actor"]) == alone("actor", trained_before)
    assert plain(whole["critic"]) == alone("critic", trained_before)


@pytest.mark.parametrize("first", ["auto", "other"])
@pytest.mark.parametrize("at_zero", [True, False])
def test_what_another_optimizer_trains_is_left_to_it(first: str, at_zero: bool) -> None:
    whole, losses = actor_critic()
    train_plainly(adam(whole["critic"]), lambda i: losses(i)[1], STEPS)
    expected = plain(whole["critic"])
    whole, losses = actor_critic()
    other, auto = adam(whole["critic"]), AutoLR(whole, adam(whole["actor"]), STEPS)

    def step_other() -> None:
        other.step()
        other.zero_grad(set_to_none=not at_zero)

    auto.search(lambda i: sum(losses(i)))  # type: ignore[arg-type, return-value]
    while not auto.finished:
        one, second = losses(auto.batch)
        (one + second).backward()
        step_other() if first == "other" else None
        auto.step(one)
        step_other() if first == "auto" else None
    assert plain(whole["critic"]) == expected
    assert plain(whole["actor"]) == alone("actor")


@pytest.mark.parametrize("trained_before", [0, 200])
@pytest.mark.parametrize("how", ["look", "search"])
def test_a_search_leaves_the_gradients_of_others_as_they_are(how: str, trained_before: int) -> None:
    whole, losses = actor_critic()
    train_plainly(adam(whole["actor"]), lambda i: losses(i)[0], trained_before)
    losses(0)[1].backward()
    kept = [(p, p.grad, p.grad.clone()) for p in whole["critic"].parameters() if p.grad is not None]
    whole["critic"].extra = nn.Parameter(torch.zeros(()))  # has none yet
    auto = AutoLR(whole, adam(whole["actor"]), STEPS)
    getattr(auto, how)(lambda i: sum(losses(i)) * (1 + whole["critic"].extra))
    assert len(kept) == 4
    for weight, grad, before in kept:
        assert weight.grad is grad
        assert torch.equal(grad, before)
    assert whole["critic"].extra.grad is None
    assert all(p.grad is None for p in whole["actor"].parameters())


def test_the_gradient_of_others_is_no_part_of_the_norm() -> None:
    whole, losses = actor_critic()
    auto = AutoLR(whole, adam(whole["actor"]), STEPS)
    loss, other = losses(0)
    (loss + 1e6 * other).backward()
    own = torch.stack([p.grad.norm() for p in whole["actor"].parameters() if p.grad is not None]).norm()
    theirs = [p.grad.clone() for p in whole["critic"].parameters() if p.grad is not None]
    auto.before_step()
    assert auto.engine.update(loss, torch.inf) == pytest.approx(float(own), rel=1e-5)
    assert all(torch.equal(p.grad, was) for p, was in zip(whole["critic"].parameters(), theirs, strict=True))  # type: ignore[arg-type]


def test_frozen_weights_come_back_and_those_that_join_do_too() -> None:
    """A teacher that follows the student; a body that is trained from some step on."""
    whole, _ = actor_critic()
    whole["teacher"] = nn.Linear(4, 4).requires_grad_(False)
    optimizer = adamw(whole["actor"])
    snapshot, before = AutoLR(whole, optimizer, STEPS).engine.snapshot(), plain(whole)
    with torch.no_grad():
        for weight in whole.parameters():
            weight.add_(1)
    snapshot.restore()
    assert plain(whole["actor"]) + plain(whole["teacher"]) == before[:4] + before[-2:]
    assert plain(whole["critic"]) != before[4:8]
    optimizer.add_param_group({"params": list(whole["critic"].parameters())})
    snapshot.restore()
    assert plain(whole) == before
