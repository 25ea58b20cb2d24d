"""`AutoLR` built or called wrongly: one sentence, and nothing has changed."""

from __future__ import annotations

import copy
import math
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from torch import nn
from transformers import Adafactor
from transformers.optimization import AdafactorSchedule

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.param_groups import GroupSettings
from aios.auto_lr.race import RaceConfig
from aios.auto_lr.rules import NoiseRules
from aios.auto_lr.trouble_config import TroubleConfig
from auto_lr.problems import adamw, classifier, fingerprint, train


@pytest.mark.parametrize(
    "steps",
    [
        math.nan,
        math.inf,
        -math.inf,
        10.5,
        0,
        -5,
        True,
        "400",
        None,
        [400],
        1e300,
        torch.ones(2),
        pytest.param(10**5000, id="huge"),
    ],
)
def test_steps_that_are_no_whole_number_are_refused_by_name(steps: Any) -> None:
    model, _ = classifier()
    with pytest.raises(ValueError, match=r"^steps = .* is not allowed: must be a whole number from 1 to ") as caught:
        AutoLR(model, adamw(model), steps)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("steps", [20, 20.0, numpy.int64(20), numpy.float32(20)])
def test_a_whole_number_of_any_type_is_taken(steps: Any) -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), steps)
    assert len(train(auto, forward)[0]) == 20
    assert type(auto.steps) is int


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"profile": "Auto"}, "profile = 'Auto' is not allowed: one of auto, rules, fixed, engine"),
        ({"settings": {"lr_mim": 1e-5}}, "settings: 'lr_mim' is no field of AdaptiveLRConfig"),
        ({"window_limit": 1}, "window_limit = 1 is not allowed: must be a whole number >= 2"),
        ({"warmup_steps": 20.0}, "warmup_steps = 20.0 is not allowed: must be a whole number >= 0"),
    ],
)
def test_a_wrong_setting_is_refused_where_it_is_given(setting: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        AutoLRConfig(**setting)


@pytest.mark.parametrize("lr", [0.0, math.nan, math.inf, -1e-3])
def test_a_first_rate_that_no_other_can_keep_a_ratio_to_is_refused(lr: float) -> None:
    model, _ = classifier()
    optimizer = adamw(model)
    optimizer.param_groups[0]["lr"] = lr
    with pytest.raises(ValueError, match=r"the learning rate of the first param group is .* must be above 0"):
        AutoLR(model, optimizer, 20)


def test_an_optimizer_that_trains_nothing_of_the_model_is_refused() -> None:
    model, _ = classifier()
    other, _ = classifier()
    nothing = torch.optim.AdamW([{"params": []}])
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        AutoLR(model, nothing, 20)
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        AutoLR(model, adamw(other), 20)
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        AutoLR(nn.ReLU(), adamw(other), 20)
    optimizer = adamw(model)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        AutoLR(model, optimizer, 20)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("fused", [True, False])
def test_an_empty_param_group_beside_others_does_not_disturb(first: bool, fused: bool) -> None:
    model, forward = classifier()
    groups: list[dict[str, Any]] = [{"params": list(model.parameters())}, {"params": []}]
    auto = AutoLR(model, torch.optim.AdamW(groups[:: -1 if first else 1], lr=1e-3, fused=fused), 300)
    auto.search(forward)
    losses, _ = train(auto, forward)
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])


def test_frozen_parameters_stay_as_they_are_while_the_others_train() -> None:
    model, forward = classifier()
    model[0].requires_grad_(False)
    frozen = model[0].weight.clone()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    losses, _ = train(auto, forward)
    assert torch.equal(model[0].weight, frozen)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_a_step_past_the_end_is_refused_and_changes_nothing() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 20)
    train(auto, forward)
    before = fingerprint(model, optimizer)
    loss = forward(auto.batch)
    loss.backward()
    with pytest.raises(ValueError, match=r"all 20 steps are done.*finished.*more steps"):
        auto.step(loss)
    assert fingerprint(model, optimizer) == before
    assert (auto.step_count, auto.batch) == (20, 20)


@pytest.mark.parametrize("as_given", [float, numpy.float32, lambda loss: loss.detach().reshape(1), torch.Tensor.double])
def test_the_loss_may_be_any_single_number(as_given: Callable[[Any], Any]) -> None:
    ends = []
    for convert in (as_given, lambda loss: loss):
        model, forward = classifier()
        optimizer = adamw(model)
        auto = AutoLR(model, optimizer, 300)
        auto.search(forward)
        while not auto.finished:
            loss = forward(auto.batch)
            loss.backward()
            auto.step(convert(loss.detach()))
        ends.append(fingerprint(model, optimizer))
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "loss",
    [
        None,
        "2.5",
        True,
        1j,
        [2.5],
        torch.ones(2),
        torch.ones(0),
        torch.tensor(1j),
        torch.tensor(True),
        pytest.param(10**5000, id="huge"),
    ],
)
def test_a_loss_that_is_no_single_number_is_refused_and_changes_nothing(loss: Any) -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 20)
    forward(0).backward()
    before = fingerprint(model, optimizer)
    with pytest.raises(ValueError, match=r"^loss = .* is not allowed: must be") as caught:
        auto.step(loss)
    assert len(str(caught.value)) < 300
    assert fingerprint(model, optimizer) == before
    assert auto.step_count == 0
    auto.step(forward(0))


def test_updates_of_the_next_run_move_the_weights_after_one_that_was_left_out() -> None:
    """The last step of one run is skipped; the search of the next, with the same optimizer, must still train."""
    model, forward = classifier()
    optimizer = adamw(model, fused=True)
    first = AutoLR(model, optimizer, 20)
    train(first, lambda batch: forward(batch) * (math.nan if batch == 19 else 1.0))

    seen: list[Any] = []
    second = AutoLR(model, optimizer, 400)
    found = second.look(lambda batch: (seen.append(model[0].weight.clone()), forward(batch))[1])

    assert any(not torch.equal(weight, seen[0]) for weight in seen)
    assert found.lr is not None
    before = model[0].weight.clone()
    forward(0).backward()
    optimizer.step()
    assert not torch.equal(model[0].weight, before)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (torch.optim.LBFGS, "LBFGS cannot be steered: its step needs a closure"),
        (torch.optim.Rprop, "Rprop cannot be steered: its learning rate counts in the first step alone"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize=True is not allowed"),
        (
            Adafactor,
            r"the optimizer was built without a learning rate, to set its own: give it one \(.*relative_step=False",
        ),
    ],
    ids=["closure", "no rate", "maximize", "its own rate"],
)
def test_an_optimizer_that_cannot_be_steered_is_refused_in_one_sentence(make: Any, words: str) -> None:
    model, _ = classifier()
    with pytest.raises(ValueError, match=f"^{words}"):
        AutoLR(model, make(model.parameters()), 100)


@pytest.mark.parametrize("shown", [0.0, 1e-3])
def test_an_optimizer_with_a_rate_of_its_own_is_refused_beside_a_schedule_that_shows_another(shown: float) -> None:
    model, _ = classifier()
    optimizer = Adafactor(model.parameters())
    AdafactorSchedule(optimizer, initial_lr=shown)
    with pytest.raises(ValueError, match=r"^the optimizer was built without .* to set its own: .*relative_step=False"):
        AutoLR(model, optimizer, 100)


def test_a_loss_that_is_never_finite_is_said_to_be() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 100, log_fn=events.append)
    auto.search(lambda i: forward(i) * math.nan)
    while auto.step_count < 10:
        loss = forward(auto.batch) * math.nan
        loss.backward()
        auto.step(loss)
    (climb,) = (event for event in events if event["event"] == "adaptive_lr_climb")
    assert climb["lr"] is None
    assert "never finite" in climb["reason"]
    assert climb["step"] == 2


@pytest.mark.parametrize("profile", ["rules", "fixed"])
def test_a_profile_that_goes_by_the_rate_it_is_given_refuses_to_search(profile: Any) -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 100, AutoLRConfig(profile=profile))
    with pytest.raises(ValueError, match=f"there can be no search here: profile {profile} goes by the optimizer's LR"):
        auto.search(forward)
    assert train(auto, forward)[1][20] == 1e-3


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: ClimbConfig(cycles_per_decade=0),
            "cycles_per_decade = 0 is not allowed: must be a whole number",
        ),
        (lambda: ClimbConfig(decay_part=0.9), "rise_part + decay_part = "),
        (lambda: ClimbConfig(rise_part=-1.0, decay_part=1.5), "rise_part = -1.0 is not allowed"),
        (lambda: RaceConfig(warmup=1.0, decay=1.0), "warmup + decay = 2.0 is not allowed"),
        (lambda: ClimbConfig(divisor=0.0), "divisor = 0.0 is not allowed: must be a finite number from "),
        (lambda: RaceConfig(judges=0), "judges = 0 is not allowed: must be a whole number >= 1"),
        (lambda: RaceConfig(factor=1.0), "factor = 1.0 is not allowed: must be a finite number from 1.01"),
        (lambda: NoiseRules(plateau_steps=-5), "plateau_steps = -5 is not allowed: must be a whole number >= 1"),
        (
            lambda: NoiseRules(raise_gain=math.nan),
            "raise_gain = nan is not allowed: must be a finite number from 0",
        ),
        (lambda: TroubleConfig(min_fill=2), "min_fill = 2 is not allowed: must be a whole number >= 8"),
        (
            lambda: AutoLRConfig(warmup_fraction="0.1"),
            "warmup_fraction = '0.1' is not allowed: must be a finite",
        ),
        (lambda: AutoLRConfig(max_grad_norm="1"), "max_grad_norm = '1' is not allowed: must be a finite number > 0"),
        (lambda: AutoLRConfig(max_grad_norm=True), "max_grad_norm = True is not allowed"),
        (lambda: AutoLRConfig(role_factors={"mlp": True}), "role_factors: mlp = True is not allowed"),
        (lambda: GroupSettings(spike_factor=0), "spike_factor = 0 is not allowed: must be a finite number above 0, up"),
        (lambda: GroupSettings(lr_min=10**400), "lr_min = a whole number of 1329 bits is not allowed"),
        (lambda: AutoLRConfig(groups={"head": 1}), "groups: head = 1 is not allowed: must be a GroupSettings"),
    ],
)
def test_a_number_out_of_range_is_refused_where_it_is_given(build: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        build()


def test_a_step_that_was_not_begun_cannot_be_passed() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 100)
    with pytest.raises(ValueError, match="pass_step comes after before_step"):
        auto.pass_step()
    auto.search(forward)
    with pytest.raises(ValueError, match="pass_step comes after before_step"):
        auto.pass_step()
    auto.before_step()
    auto.pass_step()
    assert auto.step_count == 1


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, copy.copy, pickle.dumps, lambda auto: copy.deepcopy([auto.model, auto])]
)
def test_it_is_not_copied_for_its_hooks_would_stay_behind(copied: Callable[[Any], Any]) -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 100)
    auto.search(forward)
    with pytest.raises(TypeError, match=r"cannot be copied or pickled: .*state_dict\(\) by load_state_dict\(\)"):
        copied(auto)


@pytest.mark.parametrize(
    "handed",
    [
        lambda one: {"all": one},
        lambda one: (each for each in [one]),
        lambda one: [one.param_groups],
        lambda one: one.state_dict(),
        lambda one: None,
        lambda one: "adam",
    ],
    ids=["dict", "generator", "groups", "state", "nothing", "name"],
)
def test_what_is_no_optimizer_and_no_list_of_them_is_refused_with_the_remedy(handed: Callable[[Any], Any]) -> None:
    model, _ = classifier()
    words = r"^optimizers: a \w+ is not allowed: must be an optimizer or a list of them, of a dict list\(optimizers"
    with pytest.raises(ValueError, match=words):
        AutoLR(model, handed(adamw(model)), 20)


def test_no_optimizer_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        AutoLR(classifier()[0], [], 20)


def test_a_weight_that_two_optimizers_hold_is_refused_by_name() -> None:
    model, _ = classifier()
    optimizer = adamw(model)
    before = fingerprint(model, optimizer)
    with pytest.raises(ValueError, match=r"^two optimizers hold 0.weight, .*: hand each optimizer over once"):
        AutoLR(model, [optimizer, optimizer], 20)
    head = torch.optim.SGD(model[3].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"^two optimizers hold 3.weight, .*give each weight to one of them"):
        AutoLR(model, [optimizer, head], 20)
    assert fingerprint(model, optimizer) == before
    assert "initial_lr" not in optimizer.param_groups[0]
