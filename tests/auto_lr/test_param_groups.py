"""Roles: told nothing they keep their ratio to base to the last bit, told something they go by it, within bounds."""

from __future__ import annotations

import copy
import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.grouped_scheduler import GroupedLRScheduler
from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.param_groups import GroupSettings, Role, role_of, set_learning_rate
from aios.auto_lr.plan import Given, Profile, make_plan
from aios.auto_lr.recovery import Recovery
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.trouble import TroubleMonitor
from aios.auto_lr.trouble_config import TroubleConfig
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler, LRDecision
from auto_lr.problems import adamw, classifier, train

SETTINGS = AdaptiveLRConfig(1e-3, 1e-5, 1e-2, window_size=2, cooldown_steps=0, patience=2)
LOSSES = st.lists(st.one_of(st.floats(0.1, 10.0), st.just(math.nan), st.just(math.inf)), min_size=1, max_size=60)
DECISIONS = st.lists(st.sampled_from([d for d in LRDecision if d is not LRDecision.HOLD]), min_size=1, max_size=40)
PROFILES = [GroupedLRScheduler, AutoLRScheduler]


def optimizer(*ratios: float, lr: float = 1e-3) -> Any:
    """Param groups base and router, then others, at `ratios` to the first."""
    roles = ["router", "adapter", "third"]
    groups = [{"lr": lr, "role": "base"}]
    return SimpleNamespace(
        param_groups=groups + [{"lr": lr * ratio, "role": roles[i]} for i, ratio in enumerate(ratios)]
    )


def scheduler(settings: GroupSettings, base: AdaptiveLRConfig = SETTINGS, **kwargs: Any) -> GroupedLRScheduler:
    """One for base and a router with `settings`."""
    return GroupedLRScheduler(optimizer(1.0), base, groups={"router": settings}, **kwargs)


def factor(low: float, high: float) -> st.SearchStrategy[float | None]:
    return st.one_of(st.none(), st.floats(low, high))


@st.composite
def group_settings(draw: st.DrawFn) -> GroupSettings:
    """Any settings; bounds, where both are set, leave room between them."""
    low = draw(st.one_of(st.none(), st.floats(1e-6, 1e-3)))
    high = draw(st.one_of(st.none(), st.floats(1.1e-3, 1e-1)))
    return GroupSettings(
        lr_ratio=draw(factor(0.01, 100)), lr_min=low, lr_max=high, increase_factor=draw(factor(1, 2)),
        decrease_factor=draw(factor(0.3, 1)), spike_factor=draw(factor(0.1, 1)), caution=draw(factor(0, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("profile", PROFILES)
@given(losses=LOSSES, ratios=st.lists(st.floats(1e-3, 1e3), max_size=3))
@settings(max_examples=60, deadline=None)
def test_told_nothing_every_group_keeps_its_ratio_to_the_last_bit(
    profile: type[GroupedLRScheduler], losses: list[float], ratios: list[float]
) -> None:
    plain_optimizer, own_optimizer = optimizer(*ratios), optimizer(*ratios)
    bases = [group["lr"] for group in plain_optimizer.param_groups]
    own = profile(own_optimizer, SETTINGS, groups={"router": GroupSettings()})
    plain = AdaptiveLRScheduler(plain_optimizer, SETTINGS)
    for loss in losses:
        own.step(loss)
        plain.step(loss)
        assert own.get_last_lr() == [own.current_lr * (base / bases[0]) for base in bases]
        if profile is GroupedLRScheduler:
            assert own.get_last_lr() == plain.get_last_lr()
    if profile is GroupedLRScheduler:
        assert own.state_dict() == plain.state_dict()


@given(decisions=DECISIONS, told=group_settings(), unit=st.floats(0.01, 100))
@settings(max_examples=300, deadline=None)
def test_a_role_is_always_within_its_bounds(decisions: list[LRDecision], told: GroupSettings, unit: float) -> None:
    events: list[dict[str, Any]] = []
    torch_like = optimizer(unit)
    own = AutoLRScheduler(torch_like, SETTINGS, log_fn=events.append, groups={"router": told})
    for decision in decisions:
        own.intervene(decision, "test", "test")
        lr = own.role_lrs().get("router", torch_like.param_groups[1]["lr"])
        assert lr >= (told.lr_min or 0)
        assert lr <= (told.lr_max or math.inf)
        assert 1e-5 <= own.current_lr <= 1e-2
    for event in events[1:]:
        for rates in event.get("groups", {}).values():
            assert all((told.lr_min or 0) <= rate <= (told.lr_max or math.inf) for rate in rates.values())


@given(decisions=DECISIONS, told=group_settings())
@settings(max_examples=200, deadline=None)
def test_the_rates_agree_with_a_slow_and_readable_reference(decisions: list[LRDecision], told: GroupSettings) -> None:
    own = AutoLRScheduler(optimizer(1.0), SETTINGS, groups={"router": told})
    ratio = told.lr_ratio or 1.0
    low, high = 1e-5 * ratio, 1e-2 * ratio
    if told.lr_min is not None:
        low, high = told.lr_min, max(high, told.lr_min)
    if told.lr_max is not None:
        low, high = min(low, told.lr_max), told.lr_max
    lr = min(max(1e-3 * ratio, low), high)
    for decision in decisions:
        before = own.current_lr
        own.intervene(decision, "test", "test")
        by_base = own.current_lr / before
        name = {"increase": "increase_factor", "decrease": "decrease_factor", "spike_decrease": "spike_factor"}
        by = getattr(told, name[decision.value])
        if by is None:
            by = by_base
        elif decision is not LRDecision.SPIKE_DECREASE:
            by = min(max(by, 0.7), 1.3)
            by = min(by, high / lr) if decision is LRDecision.INCREASE else by
        if decision is LRDecision.INCREASE:
            by = 1 + (by - 1) * (1 - (told.caution or 0))
        lr = min(max(lr * by, low), high)
        if told.said:
            assert own.role_lrs()["router"] == pytest.approx(lr, rel=1e-9)


@pytest.mark.parametrize("profile", PROFILES)
@given(losses=LOSSES, told=group_settings(), cut=st.integers(0, 59))
@settings(max_examples=60, deadline=None)
def test_a_restored_scheduler_goes_on_as_if_it_had_never_stopped(
    profile: type[GroupedLRScheduler], losses: list[float], told: GroupSettings, cut: int
) -> None:
    whole = profile(optimizer(1.0), SETTINGS, groups={"router": told})
    first, second = (profile(optimizer(1.0), SETTINGS, groups={"router": told}) for _ in range(2))
    for loss in losses:
        whole.step(loss)
    for loss in losses[:cut]:
        first.step(loss)
    second.load_state_dict(json.loads(json.dumps(first.state_dict(), allow_nan=False)))
    for loss in losses[cut:]:
        second.step(loss)
    assert second.get_last_lr() == whole.get_last_lr()
    assert second.state_dict() == whole.state_dict()


@pytest.mark.parametrize(
    ("told", "decision", "expected"),
    [
        ({"increase_factor": 1.2}, LRDecision.INCREASE, 1.2e-3),
        ({"increase_factor": 9.0}, LRDecision.INCREASE, 1.3e-3),  # base's limit on one change
        ({"decrease_factor": 0.9}, LRDecision.DECREASE, 0.9e-3),
        ({"spike_factor": 0.1}, LRDecision.SPIKE_DECREASE, 0.1e-3),
        ({"spike_factor": 0.1}, LRDecision.INCREASE, 1.1e-3),
        ({"caution": 1.0}, LRDecision.INCREASE, 1e-3),
        ({"caution": 0.5}, LRDecision.INCREASE, 1.05e-3),
        ({"caution": 0.5, "increase_factor": 1.2}, LRDecision.INCREASE, 1.1e-3),
        ({"caution": 1.0}, LRDecision.DECREASE, 0.7e-3),
        ({"lr_max": 1.05e-3}, LRDecision.INCREASE, 1.05e-3),
        ({"lr_min": 0.8e-3}, LRDecision.SPIKE_DECREASE, 0.8e-3),
        ({"lr_ratio": 0.25}, LRDecision.INCREASE, 0.275e-3),
    ],
)
def test_what_each_setting_does_to_one_decision(told: dict[str, float], decision: LRDecision, expected: float) -> None:
    own = AutoLRScheduler(optimizer(1.0), SETTINGS, groups={"router": GroupSettings(**told)})
    own.intervene(decision, "test", "test")
    assert own.role_lrs()["router"] == pytest.approx(expected, rel=1e-12)
    assert own.get_last_lr() == [own.current_lr, own.role_lrs()["router"]]


def test_a_decrease_acts_at_once_on_a_role_that_stood_at_its_bound() -> None:
    own = AutoLRScheduler(optimizer(1.0), SETTINGS, groups={"router": GroupSettings(lr_max=1.1e-3)})
    for _ in range(5):
        own.intervene(LRDecision.INCREASE, "test", "test")
    assert own.role_lrs() == {"router": 1.1e-3}
    own.intervene(LRDecision.SPIKE_DECREASE, "test", "test")
    assert own.role_lrs()["router"] == pytest.approx(0.55e-3)


def test_the_brake_acts_on_a_role_though_base_is_at_its_floor() -> None:
    events: list[dict[str, Any]] = []
    floor = AdaptiveLRConfig(1e-3, 1e-3, 1e-2, window_size=2)
    own = scheduler(GroupSettings(lr_min=1e-6), floor, log_fn=events.append)
    own.step(math.nan)
    assert own.role_lrs()["router"] == 1e-3  # it takes part in what base does: nothing
    assert [event["event"] for event in events] == ["adaptive_lr_init"]
    own = scheduler(GroupSettings(lr_min=1e-6, spike_factor=0.5), floor, log_fn=events.append)
    own.step(math.nan)
    assert own.role_lrs()["router"] == 0.5e-3
    assert (events[-1]["change_pct"], events[-1]["groups"]) == (0.0, {"router": {"old_lr": 1e-3, "new_lr": 0.5e-3}})


def test_events_name_the_roles_that_are_told_something_and_no_others() -> None:
    events: list[dict[str, Any]] = []
    own = scheduler(GroupSettings(lr_ratio=2.0, caution=1.0), log_fn=events.append)
    own.step(math.nan)
    init, brake = events
    assert init["groups"] == {"router": {"lr": 2e-3, "lr_min": 2e-5, "lr_max": 2e-2, "lr_ratio": 2.0, "caution": 1.0}}
    assert init["param_groups"] == ["base", "router"]
    assert brake["groups"] == {"router": {"old_lr": 2e-3, "new_lr": 1e-3}}
    silent: list[dict[str, Any]] = []
    scheduler(GroupSettings(), log_fn=silent.append).step(math.nan)
    assert not any({"groups", "param_groups"} & event.keys() for event in silent)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"lr_ratio": 0.0}, "lr_ratio = 0.0 .* > 0"),
        ({"lr_min": -1.0}, "lr_min = -1.0 .* > 0"),
        ({"lr_max": math.inf}, "lr_max = inf .* finite"),
        ({"increase_factor": 0.9}, r"increase_factor = 0.9 .* >= 1"),
        ({"decrease_factor": 1.1}, r"decrease_factor = 1.1 .* above 0, up to 1"),
        ({"spike_factor": 0.0}, r"spike_factor = 0.0 .* above 0, up to 1"),
        ({"caution": 1.5}, r"caution = 1.5 .* from 0 to 1"),
        ({"caution": True}, "caution = True"),
        ({"lr_min": 1e-2, "lr_max": 1e-3}, "lr_min = 0.01 .* <= lr_max = 0.001"),
    ],
)
def test_a_bad_value_names_field_value_and_range(told: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        GroupSettings(**told)


def test_roles_that_cannot_be_are_refused() -> None:
    for name, words in (("routr", "'routr' .* no param group .* base, router"), ("base", "the scheduler itself")):
        with pytest.raises(ValueError, match=words):
            GroupedLRScheduler(optimizer(1.0), SETTINGS, groups={name: GroupSettings(caution=1.0)})
    with pytest.raises(ValueError, match="must be > 0"):
        GroupedLRScheduler(optimizer(0.0), SETTINGS, groups={"router": GroupSettings(caution=1.0)})
    own = scheduler(GroupSettings(caution=1.0))
    before = own.state_dict()
    for groups in ({"router": "1"}, {"router": math.nan}, {"router": -1.0}, [1.0]):
        with pytest.raises(ValueError, match="groups"):
            own.load_state_dict({**before, "groups": groups})
    assert own.state_dict() == before


def test_a_state_without_roles_loads_and_the_role_begins_at_its_start_ratio() -> None:
    old = AdaptiveLRScheduler(optimizer(1.0), SETTINGS)
    old.step(math.nan)
    own = scheduler(GroupSettings(lr_ratio=0.5))
    own.load_state_dict(old.state_dict())
    assert own.get_last_lr() == [0.5e-3, 0.25e-3]


def test_restored_rates_are_brought_within_new_bounds() -> None:
    own = scheduler(GroupSettings(lr_ratio=4.0))
    new = scheduler(GroupSettings(lr_ratio=4.0, lr_max=3e-3))
    new.load_state_dict(own.state_dict())
    assert new.role_lrs() == {"router": 3e-3}


@pytest.mark.parametrize("profile", ["rules", "auto"])
def test_warm_up_and_anneal_act_on_every_role(profile: Profile) -> None:
    model = nn.ModuleDict({"body": nn.Linear(2, 2), "router": nn.Linear(2, 2)})
    groups = [{"params": part.parameters(), "role": name, "initial_lr": 1e-3} for name, part in model.items()]
    sgd = torch.optim.SGD(groups, lr=1e-3)
    told = {"router": GroupSettings(lr_ratio=0.5, caution=1.0)}
    given = {
        name: getattr(SETTINGS, name) for name in ("lr_min", "lr_max", "window_size", "cooldown_steps", "patience")
    }
    config = AutoLRConfig(profile, warmup_steps=4, anneal_fraction=0.5, settings=given, groups=told)
    control = LearningRateControl(make_plan(Given(config, 20, 1e-3)), sgd, lambda event: None)
    own = control.scheduler
    assert own is not None
    paths = []
    for step in range(1, 21):
        full = [own.current_lr, own.role_lrs()["router"]]
        control.before_step(step)
        paths.append([group["lr"] for group in sgd.param_groups])
        control.after_step(step, 10.0 - step, None)
    assert [base for base, _ in paths[:4]] == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3])
    assert [router for _, router in paths[:4]] == [base / 2 for base, _ in paths[:4]]
    assert paths[-1] == pytest.approx([control.anneal.factor(20) * lr for lr in full])
    assert max(router for _, router in paths) == pytest.approx(0.5e-3)


def test_a_rewind_brings_every_role_down_to_where_it_was_and_never_up() -> None:
    model = nn.Linear(2, 2)
    groups = [{"params": [p], "role": r, "initial_lr": 1e-3} for p, r in zip(model.parameters(), "ab", strict=True)]
    sgd = torch.optim.SGD(groups, lr=1e-3)
    own = AutoLRScheduler(sgd, SETTINGS, groups={"b": GroupSettings(increase_factor=1.3, spike_factor=0.25)})
    at_once = TroubleMonitor(TroubleConfig(non_finite_patience=1))
    recovery = Recovery(own, at_once, lambda: Snapshot(model, sgd), lambda event: None)
    recovery.keep_snapshot()
    own.intervene(LRDecision.INCREASE, "test", "test")
    recovery.after_step(1, math.nan, 1.0, math.inf)
    assert own.current_lr == pytest.approx(0.5e-3)
    assert own.role_lrs()["b"] == pytest.approx(0.25e-3)
    recovery.after_step(2, math.nan, 1.0, math.inf)
    assert own.role_lrs()["b"] == pytest.approx(0.0625e-3)
    set_learning_rate(sgd.param_groups, own.current_lr)
    assert [group["lr"] for group in sgd.param_groups] == own.get_last_lr() == [own.current_lr, own.role_lrs()["b"]]


def test_role_of_is_the_role_else_the_name() -> None:
    assert [role_of(g) for g in ({"role": "a", "name": "b"}, {"name": "b"}, {})] == ["a", "b", "base"]


def test_bounds_taken_from_base_give_way_to_those_that_are_set() -> None:
    role = Role.beside(SETTINGS, GroupSettings(lr_min=0.5), 1.0)
    assert (role.limits.lr_min, role.limits.lr_max) == (0.5, 0.5)
    role = Role.beside(SETTINGS, GroupSettings(lr_max=1e-7), 1.0)
    assert (role.limits.lr_min, role.limits.lr_max) == (1e-7, 1e-7)


class Unread:
    """A rate on a device that must not be waited for."""

    def __init__(self) -> None:
        self.rate = 0.0

    def fill_(self, rate: float) -> None:
        self.rate = rate

    def __float__(self) -> float:
        raise AssertionError("the host waits for the device")


def test_no_rate_is_read_from_the_device_to_set_another() -> None:
    rates = Unread(), Unread()
    set_learning_rate([{"lr": rates[0], "initial_lr": 1.0}, {"lr": rates[1], "initial_lr": 2.0}], 0.5)
    assert [rate.rate for rate in rates] == [0.5, 1.0]


def test_auto_lr_trains_a_role_at_its_own_rate() -> None:
    model, forward = classifier()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear)]
    groups = [{"params": layers[0].parameters()}, {"params": layers[1].parameters(), "name": "head"}]
    adam = torch.optim.AdamW(groups, lr=1e-3)
    events: list[dict[str, Any]] = []
    config = AutoLRConfig(groups={"head": GroupSettings(lr_ratio=0.5, caution=1.0)})
    auto = AutoLR(model, adam, 800, config, events.append)

    def spoiled(i: int) -> torch.Tensor:
        return forward(i) * (math.nan if 400 <= i < 404 else 1.0)  # trouble: the rate is cut, and comes back

    auto.search(spoiled)
    assert [group["lr_scale"] for group in adam.param_groups[1:]] == [0.5]
    losses, _ = train(auto, spoiled)
    assert sum(losses[-20:]) < 0.3 * sum(losses[:20])
    changes = [event for event in events if event["event"] == "adaptive_lr_adjustment"]
    (init,) = (event for event in events if event["event"] == "adaptive_lr_init")
    first = init["groups"]["head"]["lr"]
    assert first == init["initial_lr"] / 2
    rates = [change["groups"]["head"]["new_lr"] for change in changes]
    assert rates == [pytest.approx(change["new_lr"] / 2) for change in changes]
    back = next(i for i, change in enumerate(changes) if change["decision"] == "trouble_over_increase")
    assert rates[back - 1] < rates[back] <= first
    with pytest.raises(ValueError, match="no param group"):
        AutoLR(model, adamw(copy.deepcopy(model)), 10, config)
