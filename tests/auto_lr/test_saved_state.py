"""`load_state_dict` given anything: it goes on, or says in one ValueError what is wrong and changes nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.param_groups import GroupSettings
from aios.auto_lr.trouble_config import TroubleConfig
from auto_lr.problems import adamw, classifier, fingerprint

HEAD = AutoLRConfig(groups={"head": GroupSettings(caution=0.5)}, trouble=TroubleConfig(healthy_after=1))
SAVED_AT = {"warm-up": 5, "compared": 50, "troubled": 120, "finishing": 260}
"""Batches trained on."""


def grouped(model: nn.Module) -> torch.optim.Optimizer:
    head = {"params": list(model[3].parameters()), "role": "head"}  # type: ignore[index]
    return torch.optim.AdamW([{"params": list(model[0].parameters())}, head], lr=1e-3)  # type: ignore[index]


def fresh(roles: bool) -> AutoLR:
    model, _ = classifier()
    return AutoLR(model, grouped(model), 600, HEAD) if roles else AutoLR(model, adamw(model), 600)


@cache
def saved(at: str, roles: bool) -> dict[str, Any]:
    """A state of a run with trouble in it, `at` one of its moments."""
    auto = fresh(roles)
    model = auto.model

    def spoiled(batch: int) -> torch.Tensor:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch))
        bad = math.nan if 100 <= batch < 103 else 1.0
        return nn.functional.cross_entropy(model(x), x[:, :10].argmax(1)) * bad

    auto.search(spoiled)
    while auto.batch < SAVED_AT[at]:
        loss = spoiled(auto.batch)
        loss.backward()
        auto.step(loss)
    if at == "finishing":
        auto.finish_now()
    return auto.state_dict()


def paths(state: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Of every value in it, at any depth, itself included."""
    yield path
    inner = state.items() if isinstance(state, Mapping) else enumerate(state) if isinstance(state, list) else ()
    for key, value in inner:
        yield from paths(value, (*path, key))


def changed(state: Any, path: tuple[Any, ...], value: Any, drop: bool) -> Any:
    if not path:
        return value
    state = copy.copy(state)
    if len(path) == 1 and drop:
        del state[path[0]]
    else:
        state[path[0]] = changed(state[path[0]], path[1:], value, drop)
    return state


def refusal(auto: AutoLR, state: Any) -> str | None:
    """What `load_state_dict` says against the state; any error but ValueError is the test's."""
    try:
        auto.load_state_dict(state)
    except ValueError as error:
        return str(error)
    return None


numbers = st.one_of(
    st.integers(), st.floats(), st.sampled_from([0, -1, 10**400, 1e308, -1e308, 5e-324, 2**53, 2**64, True])
)
junk = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5), st.binary(max_size=5), st.just(torch.ones(2))),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.tuples(inner, inner),
    ),
    max_leaves=6,
)


@given(data=st.data(), at=st.sampled_from(list(SAVED_AT)), roles=st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_changed_state_is_refused_whole_or_gone_on_with(data: st.DataObject, at: str, roles: bool) -> None:
    state = saved(at, roles)
    path = data.draw(st.sampled_from(list(paths(state))))
    damaged = changed(state, path, data.draw(junk), data.draw(st.booleans()))
    auto = fresh(roles)
    before = fingerprint(auto.model, auto.engine.optimizers[0])
    said = refusal(auto, damaged)
    if said is not None:
        assert 0 < len(said) < 500
        assert "\n" not in said
        assert fingerprint(auto.model, auto.engine.optimizers[0]) == before
        assert (auto.step_count, auto.batch, auto.control) == (0, 0, None)
        auto.load_state_dict(state)
    for _ in range(3):
        if not auto.finished:
            loss = auto.model(torch.ones(2, 16)).square().mean()
            loss.backward()
            auto.step(loss)
    assert all(torch.isfinite(p).all() for p in auto.model.parameters())


@pytest.mark.parametrize("garbage", [None, 3, "state", [], {}, {"step_count": 1}, torch.ones(3), (1, 2)])
def test_what_no_state_dict_returned_is_refused(garbage: Any) -> None:
    auto = fresh(roles=False)
    with pytest.raises(ValueError, match="AutoLR state"):
        auto.load_state_dict(garbage)
    assert auto.control is None


def test_a_number_too_long_to_print_is_refused_with_a_short_message() -> None:
    auto = fresh(roles=False)
    said = refusal(auto, {**saved("warm-up", False), "batch": 10**5000})
    assert said is not None
    assert "batch is a whole number of 16610 bits" in said


def test_a_damaged_factor_of_a_role_is_named_as_one() -> None:
    state = {**saved("warm-up", False), "roles": {"factors": {"mlp": "x"}, "one_rate": 1.0, "usual": 1.0}}
    said = refusal(fresh(roles=False), state)
    assert said is not None
    assert "roles" in said
    assert "factors" in said
    assert "groups" not in said


def test_every_part_of_a_loaded_state_refuses_garbage_and_stays_as_it_was() -> None:
    auto = fresh(roles=True)
    auto.load_state_dict(saved("troubled", True))
    control = auto.control
    assert control is not None
    assert control.recovery is not None
    assert control.scheduler is not None
    owners = [control.recovery, control.recovery.monitor, control.recovery.restoration, control.scheduler]
    for owner in owners:
        before = owner.state_dict()
        for garbage in (None, [], {}, {**before, next(iter(before)): object()}):
            with pytest.raises(ValueError, match="state"):
                owner.load_state_dict(garbage)  # type: ignore[arg-type]
        assert owner.state_dict() == before


def test_roles_that_are_new_since_a_state_was_saved_do_not_disturb_what_is_owed_back() -> None:
    """Rates owed after trouble name the roles of before; a run may be gone on with under others."""
    state = copy.deepcopy(saved("troubled", False))
    state["control"]["recovery"]["restoration"]["owed"] = {"lr": 1e-2, "scales": {"gone": 2.0}}
    auto = fresh(roles=True)
    auto.load_state_dict(state)
    for _ in range(60):
        loss = auto.model(torch.ones(2, 16)).square().mean()
        loss.backward()
        auto.step(loss)
    assert auto.control is not None
    assert auto.control.recovery is not None
    assert auto.control.recovery.restoration.state_dict()["owed"] is None
