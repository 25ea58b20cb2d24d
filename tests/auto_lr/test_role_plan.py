"""Rates of a model's parts in whole runs: measured, given, kept on resume."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig, TroubleConfig
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.loop.role_plan import MEASURED, RolePlan, plan_roles, role_events
from aios.auto_lr.loop.roles import roles_of
from aios.auto_lr.loop.scaled_updates import scale_updates
from aios.errors import RunError
from auto_lr.problems import adamw, fingerprint, train
from auto_lr.readers import FACTOR, Reader, of, reader, updates_are_whole


def run(config: AutoLRConfig | None = None, steps: int = 300) -> tuple[AutoLR, list[dict[str, Any]]]:
    model, forward = reader()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), steps, config, events.append)
    auto.search(forward)
    train(auto, forward)
    return auto, events


# What `AutoLR` makes of it.


def test_a_recurrent_part_has_a_rate_of_its_own_and_the_log_says_why() -> None:
    auto, events = run()
    (told,) = of(events, "adaptive_lr_roles")
    assert (told["step"], told["role"], told["factor"], told["evidence"]) == (0, "recurrent", FACTOR, "measured")
    assert "many times" in told["reason"]
    assert updates_are_whole(auto.model, auto.engine.optimizers[0])  # the run is over


def test_updates_follow_the_factor_in_the_climb_and_behind_it() -> None:
    """SGD without momentum: what an update changes is rate x factor x gradient."""
    model, forward = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoLR(model, optimizer, 300, AutoLRConfig(max_grad_norm=1e9))
    auto.search(forward)
    seen = set()
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        weights = {"head": model.head.weight, "memory": model.memory.weight_hh_l0}
        before = {name: (w.detach().clone(), w.grad.clone()) for name, w in weights.items()}
        climbing = auto.climbing
        lr = auto.step(loss)
        if climbing != auto.climbing:
            continue  # it went back
        seen.add(climbing)
        for name, factor in (("head", 1.0), ("memory", FACTOR)):
            was, gradient = before[name]
            torch.testing.assert_close(weights[name].detach(), was - lr * factor * gradient, rtol=1e-4, atol=1e-6)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("config", "share"),
    [
        (AutoLRConfig(role_lr=False), FACTOR),
        (AutoLRConfig(role_lr=False, climb=ClimbConfig(divisor=2.0)), 0.5),
        (AutoLRConfig(role_factors={"recurrent": 1.0}), 1.0),
    ],
    ids=["one rate", "with a divisor", "none wants another"],
)
def test_where_one_rate_has_to_do_it_is_that_of_the_part_that_bears_least(config: AutoLRConfig, share: float) -> None:
    _, events = run(config)
    assert not of(events, "adaptive_lr_roles")
    (climb,) = of(events, "adaptive_lr_climb")
    _, plain = run(AutoLRConfig(role_factors={"recurrent": 1.0}, climb=ClimbConfig(divisor=1.0)))
    (knee,) = of(plain, "adaptive_lr_climb")
    assert climb["curve"] == knee["curve"]
    assert climb["lr"] == pytest.approx(share * knee["lr"])


def test_factors_of_ones_own_win_and_are_said_to_be() -> None:
    _, events = run(AutoLRConfig(role_factors={"embedding": 2, "recurrent": 0.5}))
    told = [(e["role"], e["factor"], e["evidence"]) for e in of(events, "adaptive_lr_roles")]
    assert told == [("embedding", 2.0, "settings"), ("recurrent", 0.5, "settings")]


def test_wrong_factors_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="role_factors: head = 0 is not allowed"):
        AutoLRConfig(role_factors={"head": 0})
    model, _ = reader()
    with pytest.raises(ValueError, match=r"'hed' is not allowed: no weight has that role \(roles: embedding, head"):
        AutoLR(model, adamw(model), 300, AutoLRConfig(role_factors={"hed": 2.0}))


def test_weights_in_a_group_with_a_rate_of_its_own_are_left_at_that() -> None:
    model, forward = reader()
    groups = [{"params": [*model.tokens.parameters(), *model.head.parameters()]}, {"params": model.memory.parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    optimizer.param_groups[1]["lr"] = 2e-3
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 300, log_fn=events.append)
    auto.search(forward)
    (told,) = of(events, "adaptive_lr_disabled")
    assert told["part"] == "rate for each role"
    assert "a rate of its own" in told["reason"]
    assert updates_are_whole(model, optimizer)


@pytest.mark.parametrize("recurrent_first", [True, False])
def test_a_part_with_a_rate_of_its_own_has_no_say_in_that_of_the_rest(recurrent_first: bool) -> None:
    """Nor has one that is not trained at all, or a user who wants one rate."""
    model, forward = reader()
    rest = [*model.tokens.parameters(), *model.head.parameters()]
    groups = [{"params": rest}, {"params": list(model.memory.parameters()), "lr": 3e-4}]
    trained = {
        "own": torch.optim.AdamW(groups[::-1] if recurrent_first else groups, lr=1e-3),
        "left out": torch.optim.AdamW(rest, lr=1e-3),
    }
    for optimizer in trained.values():
        for config in (AutoLRConfig(), AutoLRConfig(role_lr=False)):
            plan = plan_roles(model, [optimizer], MEASURED, config.role_lr)
            assert (plan.factors, plan.one_rate) == ({}, 1.0)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, trained["left out"], 300, log_fn=events.append)
    auto.search(forward)
    assert not events  # there is nothing to tell


class Averaged(torch.optim.SGD):
    """Pulls the weights to a slower copy of them."""

    def __init__(self, weights: Any, lr: float) -> None:
        super().__init__(weights, lr=lr)
        self.slow = [w.detach().clone() for w in self.param_groups[0]["params"]]


def test_an_optimizer_that_goes_on_from_copies_of_the_weights_has_one_rate() -> None:
    model, forward = reader()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, Averaged(model.parameters(), lr=0.1), 300, log_fn=events.append)
    auto.search(forward)
    (told,) = of(events, "adaptive_lr_disabled")
    assert told["reason"] == "Averaged keeps copies of the weights, and goes on from those"


def test_a_reparametrised_weight_keeps_its_role() -> None:
    model = nn.Sequential(nn.GRU(4, 4), nn.Embedding(4, 4))
    nn.utils.parametrizations.weight_norm(model[0], "weight_hh_l0")
    nn.utils.parametrizations.spectral_norm(model[1])
    roles = roles_of(model)
    assert {role for name, role in roles.items() if name.startswith("0.")} == {"recurrent"}
    assert {role for name, role in roles.items() if name.startswith("1.")} == {"embedding"}


def test_a_shared_weight_has_the_role_that_one_of_its_modules_says() -> None:
    model = nn.ModuleList([nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)])
    model[1].weight = model[0].weight
    model[1].lr_role = "recurrent"
    assert roles_of(model) == {"0.weight": "recurrent"}


def test_factors_of_ones_own_hold_where_nothing_is_measured_too() -> None:
    """In runs that are too short for a search, without one, and for a model that was trained before."""
    for searches, steps in ((True, 60), (False, 300)):
        model, forward = reader()
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, adamw(model), steps, AutoLRConfig(role_factors={"head": 0.5}), events.append)
        if searches:
            auto.search(forward)
        auto.pause_at(1)
        train(auto, forward)
        assert [(e["role"], e["factor"]) for e in of(events, "adaptive_lr_roles")] == [("head", 0.5)]


def test_another_one_that_is_only_built_changes_nothing() -> None:
    model, forward = reader()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scale_updates(model, [optimizer], MEASURED)
    AutoLR(model, optimizer, 300)
    weight, before = model.memory.weight_hh_l0, model.memory.weight_hh_l0.detach().clone()
    forward(0).backward()
    optimizer.step()
    torch.testing.assert_close(weight.detach(), before - 0.1 * FACTOR * weight.grad)


def test_a_model_without_such_parts_is_told_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1))
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 300, log_fn=events.append)
    auto.search(lambda i: model(torch.randn(8, 4, generator=torch.Generator().manual_seed(i))).square().mean())
    assert not events


def test_a_trained_model_has_one_rate_for_all() -> None:
    model, forward = reader()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.add_(3 * torch.outer(torch.ones(weight.shape[0]), torch.ones(weight.shape[1])))
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 300)
    assert auto.search(forward) is not None
    assert updates_are_whole(model, optimizer)


def test_a_look_leaves_nothing_on_the_optimizer() -> None:
    model, forward = reader()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 300)
    before = fingerprint(model, optimizer)
    assert auto.look(forward).lr is not None
    assert fingerprint(model, optimizer) == before
    assert updates_are_whole(model, optimizer)


@pytest.mark.parametrize("at", [20, 200], ids=["in the climb", "behind it"])
def test_a_resumed_run_goes_on_at_the_rates_of_the_roles_bit_for_bit(at: int) -> None:
    def built() -> tuple[Reader, torch.optim.Optimizer, AutoLR, Callable[[int], Tensor]]:
        model, forward = reader()
        optimizer = adamw(model)
        return model, optimizer, AutoLR(model, optimizer, 300), forward

    model, optimizer, auto, forward = built()
    auto.search(forward)
    auto.pause_at(at)
    train(auto, forward)
    auto.keep_snapshot()
    saved = copy.deepcopy([part.state_dict() for part in (model, optimizer, auto)])
    auto.pause_at(300)
    train(auto, forward)

    other, again, resumed, forward = built()
    other.load_state_dict(saved[0])
    again.load_state_dict(saved[1])
    resumed.load_state_dict(saved[2])
    train(resumed, forward)
    assert fingerprint(other, again) == fingerprint(model, optimizer)


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        (AutoLRConfig(role_lr=False), [("recurrent", FACTOR)]),
        (AutoLRConfig(role_factors={"head": 2.0}), [("head", 1.0), ("recurrent", FACTOR)]),
        (AutoLRConfig(), []),
    ],
    ids=["one rate", "another", "the same"],
)
def test_a_resumed_run_tells_which_rates_it_keeps(now: AutoLRConfig, kept: list[tuple[str, float]]) -> None:
    model, forward = reader()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    events: list[dict[str, Any]] = []
    AutoLR(model, adamw(model), 300, now, events.append).load_state_dict(auto.state_dict())
    told = of(events, "adaptive_lr_roles")
    assert sorted((event["role"], event["factor"]) for event in told) == kept
    assert all(event["evidence"] == "saved" for event in told)


def test_a_loop_that_is_left_before_its_end_can_let_go_of_the_updates() -> None:
    model, forward = reader()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 300)
    auto.search(forward)
    auto.pause_at(20)
    train(auto, forward)
    auto.release()
    assert updates_are_whole(model, optimizer)


def test_an_error_that_ends_the_run_lets_go_of_the_updates() -> None:
    model, forward = reader()
    optimizer = adamw(model)
    calm = TroubleConfig(max_rewinds=1, non_finite_patience=3)
    auto = AutoLR(model, optimizer, 300, AutoLRConfig(trouble=calm))
    auto.search(forward)
    auto.pause_at(150)
    train(auto, forward)
    auto.pause_at(300)
    with pytest.raises(RunError):
        train(auto, lambda i: forward(i) * float("nan"))
    assert updates_are_whole(model, optimizer)


def test_a_run_begun_before_there_were_roles_goes_on_with_one_rate() -> None:
    model, forward = reader()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    auto.pause_at(200)
    train(auto, forward)
    state = {key: value for key, value in auto.state_dict().items() if key != "roles"}
    other, _ = reader()
    optimizer = adamw(other)
    AutoLR(other, optimizer, 300).load_state_dict(state)
    assert updates_are_whole(other, optimizer)


def test_a_state_with_roles_of_no_version_is_refused() -> None:
    model, forward = reader()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    state = {**auto.state_dict(), "roles": {"factors": {"recurrent": -1.0}, "one_rate": 0.3}}
    with pytest.raises(ValueError, match="recurrent"):
        AutoLR(model, adamw(model), 300).load_state_dict(state)


def test_roles_that_no_optimizer_trains_any_more_are_refused_on_resume() -> None:
    model, forward = reader()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    state = auto.state_dict()
    while auto.climbing or not auto.begun:
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
    for learned in (state, auto.state_dict()):  # in the climb, and behind it
        without = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
        events: list[dict[str, Any]] = []
        resumed = AutoLR(model, without, 300, log_fn=events.append)
        with pytest.raises(ValueError, match="'recurrent'"):
            resumed.load_state_dict(learned)
        assert not resumed.begun
        assert (events, without.param_groups[0]["lr"]) == ([], 1e-3)


def test_every_role_that_was_measured_has_its_reason() -> None:
    assert all(told["evidence"] == "measured" and told["reason"] for told in role_events(RolePlan(MEASURED), 0))
