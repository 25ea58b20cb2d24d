"""What a search leaves on the optimizers: the hooks of one climb, and after an error nothing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import Forward, adamw, fingerprint, train
from auto_lr.readers import of, reader, updates_are_whole

ROLES = AutoLRConfig(role_factors={"head": 0.5})


def hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def trained_reader() -> tuple[nn.Module, Forward]:
    """One whose weights look as if they had learned something."""
    model, forward = reader()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.add_(3.0)
    return model, forward


def failing(forward: Forward, at: int) -> Forward:
    calls = [0]

    def fails(batch: int) -> Tensor:
        calls[0] += 1
        if calls[0] == at:
            raise OSError("the data are gone")
        return forward(batch)

    return fails


@pytest.mark.parametrize("at", [1, 2, 5, 12])
@pytest.mark.parametrize("make", [reader, trained_reader])
def test_a_look_that_an_error_ended_leaves_nothing(make: Callable[[], Any], at: int) -> None:
    model, forward = make()
    optimizer = adamw(model)
    auto, before = AutoLR(model, optimizer, 400, ROLES), fingerprint(model, optimizer)
    with pytest.raises(OSError, match="the data are gone"):
        auto.look(failing(forward, at))
    assert hooks(optimizer) == 0
    assert fingerprint(model, optimizer) == before
    assert updates_are_whole(model, optimizer)


@pytest.mark.parametrize("at", [1, 2, 5, 12])
def test_a_race_that_an_error_ended_leaves_nothing_and_can_be_run_again(at: int) -> None:
    model, forward = trained_reader()
    optimizer, events = adamw(model), list[dict[str, Any]]()
    auto = AutoLR(model, optimizer, 400, ROLES, events.append)
    with pytest.raises(OSError, match="the data are gone"):
        auto.search(failing(forward, at))
    assert hooks(optimizer) == 0
    assert not events
    assert auto.search(forward) is not None
    assert [(event["role"], event["factor"]) for event in of(events, "adaptive_lr_roles")] == [("head", 0.5)]
    auto.release()
    assert updates_are_whole(model, optimizer)


def test_a_run_after_a_race_that_an_error_ended_has_its_roles_all_the_same() -> None:
    model, forward = trained_reader()
    optimizer, events = adamw(model), list[dict[str, Any]]()
    auto = AutoLR(model, optimizer, 400, ROLES, events.append)
    with pytest.raises(OSError, match="the data are gone"):
        auto.search(failing(forward, 5))
    auto.pause_at(1)
    train(auto, forward)
    assert [(event["role"], event["factor"]) for event in of(events, "adaptive_lr_roles")] == [("head", 0.5)]
    assert not updates_are_whole(model, optimizer)


def ends_of(begin: Callable[[AutoLR, Forward], object]) -> tuple[Any, ...]:
    """The hooks that `begin` leaves on the optimizer, and how the run from there on ends."""
    model, forward = reader()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 200)
    begin(auto, forward)
    begun_with = hooks(optimizer)
    told = train(auto, forward)
    assert hooks(optimizer) == 0
    return begun_with, told, fingerprint(model, optimizer)


def test_while_a_climb_is_under_way_no_other_is_begun() -> None:
    def asked_again(auto: AutoLR, forward: Forward) -> None:
        auto.search(forward)
        for call in (auto.search, auto.look):
            with pytest.raises(ValueError, match="a search is under way already"):
                call(forward)

    assert ends_of(asked_again) == ends_of(AutoLR.search)


def test_a_state_that_is_gone_on_with_ends_the_climb_that_was_begun_before() -> None:
    def gone_on_with(auto: AutoLR, forward: Forward) -> None:
        auto.load_state_dict(saved_in_the_climb())

    def searched_before(auto: AutoLR, forward: Forward) -> None:
        auto.search(forward)
        auto.load_state_dict(saved_in_the_climb())

    assert ends_of(searched_before) == ends_of(gone_on_with)


def test_a_state_that_is_refused_leaves_the_climb_as_it_was() -> None:
    strange = copy.deepcopy(saved_in_the_climb())
    strange["roles"]["factors"] = {"router": 0.5}

    def refuses(auto: AutoLR, forward: Forward) -> None:
        auto.search(forward)
        with pytest.raises(ValueError, match="no optimizer trains weights of the role 'router'"):
            auto.load_state_dict(strange)

    assert ends_of(refuses) == ends_of(AutoLR.search)


def saved_in_the_climb() -> dict[str, Any]:
    model, forward = reader()
    auto = AutoLR(model, adamw(model), 200)
    auto.search(forward)
    auto.pause_at(10)
    train(auto, forward)
    assert auto.climbing
    return auto.state_dict()
