"""A higher rate is tried after the warm-up: when it wins, when it does not, and that it leaves no trace."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aios.auto_lr.api import AutoLR, AutoLRConfig
from aios.auto_lr.challenge import ChallengeConfig, compare
from aios.auto_lr.param_groups import GroupSettings
from auto_lr.problems import adamw, classifier, fingerprint, sgd, train

CONFIG = ChallengeConfig()
STEPS = CONFIG.steps
losses = st.lists(st.floats(0.1, 10.0), min_size=STEPS, max_size=STEPS)


@given(losses)
def test_a_rate_that_is_no_better_never_wins(own: list[float]) -> None:
    assert not compare(own, own, CONFIG).won
    assert not compare(own, [loss + 0.01 for loss in own], CONFIG).won


@given(losses, losses, st.floats(0.25, 4.0))
def test_the_outcome_does_not_depend_on_the_unit_of_the_loss(
    own: list[float], theirs: list[float], unit: float
) -> None:
    plain = compare(own, theirs, CONFIG)
    scaled = compare([unit * x for x in own], [unit * x for x in theirs], CONFIG)
    assert scaled.gain == pytest.approx(plain.gain, rel=1e-9, abs=1e-12)
    assert scaled.error == pytest.approx(plain.error, rel=1e-9, abs=1e-12)


@given(losses, st.integers(0, STEPS - 1))
def test_a_rate_that_breaks_loses(own: list[float], at: int) -> None:
    much_better = [loss / 10 for loss in own]
    assert compare(own, much_better, CONFIG).won == (compare(own, much_better, CONFIG).error * CONFIG.sigmas < 0.9)
    for broken in (math.nan, math.inf):
        assert not compare(own, [*much_better[:at], broken], CONFIG).won
        assert not compare(own, [*much_better[:at], broken, *much_better[at + 1 :]], CONFIG).won


@given(st.floats(0.5, 5.0), st.floats(0.0, 0.2), st.lists(st.floats(-1, 1), min_size=STEPS, max_size=STEPS))
def test_noise_that_both_share_does_not_hide_a_gain(level: float, gain: float, noise: list[float]) -> None:
    own = [level * (1 + 0.2 * x) for x in noise]
    theirs = [loss - gain * level for loss in own]
    outcome = compare(own, theirs, CONFIG)
    assert outcome.error < 1e-9
    assert outcome.won == (outcome.gain > CONFIG.gain)


def rmsprop(model: nn.Module) -> torch.optim.Optimizer:
    """Its mean of squares starts at zero, so that the first updates are ten times as large as the later ones."""
    return torch.optim.RMSprop(model.parameters(), lr=1e-4)


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


def test_a_rate_found_too_low_is_raised() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, rmsprop(model), 2000, log_fn=events.append)
    found = auto.search(forward)
    _, lrs = train(auto, forward)

    (raised, *_) = (e for e in of(events, "adaptive_lr_adjustment") if e["decision"] == "challenge_increase")
    (first, *_) = of(events, "adaptive_lr_challenge")
    (result, *_) = of(events, "adaptive_lr_challenge_result")
    assert first["lr"] == pytest.approx(found.suggestion)
    assert raised["new_lr"] == pytest.approx(3 * raised["old_lr"])
    assert raised["new_lr"] == first["challenger_lr"] > found.lr_max  # type: ignore[operator]
    assert result["won"]
    assert result["gain"] > max(CONFIG.gain, CONFIG.sigmas * result["error"])
    assert "higher_rate_won" in raised["reason"]
    assert max(lrs) >= raised["new_lr"] * 0.99
    assert auto.control is not None
    assert auto.control.bounds is not None
    assert auto.control.bounds[1] >= 1.5 * raised["new_lr"]


def test_a_raised_rate_trains_better_than_the_one_that_was_found() -> None:
    ends = []
    for search in (AutoLRConfig().range_test, AutoLRConfig().range_test.__class__(budget=0.024)):  # none left for more
        model, forward = classifier()
        auto = AutoLR(model, rmsprop(model), 2000, AutoLRConfig(range_test=search))
        auto.search(forward)
        seen, _ = train(auto, forward)
        ends.append(sum(seen[-50:]) / 50)
    assert ends[0] < ends[1]


@pytest.mark.parametrize("counted", [False, True])
@pytest.mark.parametrize(("make", "steps"), [(adamw, 400), (sgd, 1000), (rmsprop, 1000), (rmsprop, 1500)])
def test_search_and_challenges_stay_within_their_part_of_the_steps(make: Any, steps: int, counted: bool) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, make(model), steps, AutoLRConfig(count_search=counted), events.append)
    auto.search(forward)
    seen, _ = train(auto, forward)
    used = sum(e["search_steps"] for e in of(events, "adaptive_lr_search") + of(events, "adaptive_lr_challenge"))
    assert used == auto.search_steps <= 0.08 * steps
    assert len(seen) + (used if counted else 0) == auto.step_count == steps
    assert [e["step"] for e in events] == sorted(e["step"] for e in events)


@pytest.mark.parametrize("at", [60, 110, 200], ids=["before", "in the comparison", "after"])
def test_a_run_gone_on_with_ends_as_if_it_had_not_been_interrupted(at: int) -> None:
    def start() -> Any:
        model, forward = classifier(dropout=0.1)
        optimizer = rmsprop(model)
        return model, forward, optimizer, AutoLR(model, optimizer, 1000)

    model, forward, optimizer, straight = start()
    straight.search(forward)
    while straight.step_count < at:
        straight.step(backward(forward(straight.batch)))
    states = [straight.state_dict(), clone(model.state_dict()), clone(optimizer.state_dict()), torch.get_rng_state()]
    ends = train(straight, forward), fingerprint(model, optimizer)

    model, forward, optimizer, resumed = start()
    model.load_state_dict(states[1])
    optimizer.load_state_dict(states[2])
    resumed.load_state_dict(states[0], forward)
    torch.set_rng_state(states[3])
    assert (train(resumed, forward), fingerprint(model, optimizer)) == ends


def test_a_challenge_leaves_no_trace_but_the_count_of_its_steps() -> None:
    runs = []
    for with_forward in (True, False):
        model, forward = classifier(dropout=0.1)
        optimizer = adamw(model)
        auto = AutoLR(model, optimizer, 1000)
        auto.search(forward)
        while auto.step_count < 40:  # in the warm-up
            auto.step(backward(forward(auto.batch)))
        resumed = AutoLR(model, optimizer, 1000)
        resumed.load_state_dict(auto.state_dict(), forward if with_forward else None)
        seen = []
        while len(seen) < 40:  # past the challenge, and not yet at what it decides
            loss = forward(resumed.batch)
            seen.append((float(loss.detach()), resumed.step(backward(loss))))
        runs.append((resumed.search_steps, seen))
    (tried, seen), (not_tried, other) = runs
    assert tried == not_tried + STEPS
    assert seen == other


@pytest.mark.parametrize("kind", ["moe", "roles", "short"])
def test_nothing_is_tried_where_it_may_not_be(kind: str) -> None:
    model, forward = classifier()
    optimizer = torch.optim.RMSprop(
        [{"params": [p], "name": name} for p, name in zip(model.parameters(), "abcd", strict=True)], lr=1e-4
    )
    groups = {"b": GroupSettings(lr_ratio=0.5)} if kind == "roles" else {}
    events: list[dict[str, Any]] = []
    steps = 500 if kind == "short" else 2000
    auto = AutoLR(model, optimizer, steps, AutoLRConfig(groups=groups), events.append, use_moe=kind == "moe")
    assert auto.search(forward).suggestion is not None
    train(auto, forward)
    assert not of(events, "adaptive_lr_challenge")


def test_trouble_during_the_comparison_ends_it() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, rmsprop(model), 1000, log_fn=events.append)
    auto.search(forward)
    while not of(events, "adaptive_lr_challenge"):
        auto.step(backward(forward(auto.batch)))
    auto.step(backward(forward(auto.batch) * math.nan))
    train(auto, forward)
    assert not of(events, "adaptive_lr_challenge_result")


def backward(loss: torch.Tensor) -> torch.Tensor:
    loss.backward()
    return loss


def clone(state: Any) -> Any:
    return torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state)
