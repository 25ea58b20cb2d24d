"""When evaluations are taken for a turn: the decision alone, and `AutoLR.report_eval` in plain loops."""

from __future__ import annotations

import copy
import itertools
import math
import random
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.overfit import LATEST, OverfitWatch, Turn
from auto_lr.problems import adamw, fingerprint

LOSS = st.floats(0.01, 20)


def first_turn(losses: Iterable[float], training: Iterable[float] | None = None) -> tuple[int, Turn] | None:
    """Index and turn where the evaluations are first taken for one; the training loss falls unless given."""
    watch = OverfitWatch()
    seen = training if training is not None else (10 / n for n in itertools.count(1))
    for index, (loss, trained) in enumerate(zip(losses, seen, strict=False)):
        watch.trained(trained)
        turn = watch.observe(10 * index, loss)
        if turn is not None:
            return index, turn
    return None


@given(st.lists(LOSS, min_size=2, max_size=60))
def test_falling_losses_never_show_a_turn(losses: list[float]) -> None:
    assert first_turn(sorted(losses, reverse=True)) is None


@given(st.lists(LOSS, min_size=6, max_size=40), st.integers(-8, 8))
def test_the_unit_of_the_loss_makes_no_difference(losses: list[float], power: int) -> None:
    plain, scaled = first_turn(losses), first_turn([loss * 2.0**power for loss in losses])
    assert (plain is None) == (scaled is None)
    assert plain is None or (scaled is not None and plain[0] == scaled[0])


WIGGLES = st.lists(st.floats(-1, 1), min_size=12, max_size=30)


@given(WIGGLES, st.integers(2, 8), st.floats(0.01, 1))
def test_a_turn_has_a_best_before_it_and_the_latest_above_it(wiggles: list[float], turn_at: int, rise: float) -> None:
    losses = [5 + rise * (abs(n - turn_at) + 0.3 * wiggle) for n, wiggle in enumerate(wiggles)]
    found = first_turn(losses)
    if found is None:
        return
    index, turn = found
    assert turn.best.loss == min(losses[: index + 1])
    assert turn.best.step == 10 * losses.index(turn.best.loss)
    assert min(losses[index + 1 - LATEST : index + 1]) > turn.best.loss + turn.noise


def test_scatter_around_a_level_is_rarely_taken_for_a_turn() -> None:
    draw = random.Random(0)
    courses = [[2 + draw.gauss(0, 0.05) for _ in range(20)] for _ in range(500)]
    assert sum(first_turn(course) is not None for course in courses) < 0.04 * len(courses)


def test_a_fall_that_levels_off_is_rarely_taken_for_a_turn() -> None:
    draw = random.Random(1)
    courses = [[2 + 3 * math.exp(-n / 5) + draw.gauss(0, 0.02) for n in range(40)] for _ in range(200)]
    assert sum(first_turn(course) is not None for course in courses) <= 2


@pytest.mark.parametrize("scatter", [0.0, 0.005, 0.02])
def test_a_clear_turn_is_seen_within_a_few_evaluations(scatter: float) -> None:
    draw = random.Random(2)
    for _ in range(100):
        course = [2 + 3 * math.exp(-n / 1.5) + 0.1 * max(n - 4, 0) + draw.gauss(0, scatter) for n in range(20)]
        found = first_turn(course)
        assert found is not None
        assert 3 <= found[1].best.step / 10 <= 6
        assert found[0] <= 13


def test_a_rise_of_both_losses_is_no_overfitting() -> None:
    course = [3.0, 2.5, 2.2, 2.0, 2.2, 2.4, 2.6, 2.8, 3.0]
    assert first_turn(course) is not None
    assert first_turn(course, training=course) is None


@given(st.lists(LOSS | st.just(math.nan), min_size=1, max_size=30), st.integers(0, 30))
def test_a_watch_that_was_saved_goes_on_as_it_would_have(losses: list[float], cut: int) -> None:
    through, saved = OverfitWatch(), OverfitWatch()
    for index, loss in enumerate(losses):
        if index == cut:
            saved = OverfitWatch.from_state(copy.deepcopy(saved.state_dict()))
        for watch in (through, saved):
            watch.trained(10 / (index + 1))
        assert through.observe(index, loss) == saved.observe(index, loss)
    assert through.state_dict() == saved.state_dict()


STEPS = 400


def memorised() -> tuple[nn.Module, Any, Any]:
    """A classifier of sixteen samples with labels of chance, and its losses on them and on others."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    draw = torch.Generator().manual_seed(1)
    x, others = torch.randn(16, 8, generator=draw), torch.randn(64, 8, generator=draw)
    y, labels = (t[:, :4].argmax(1) for t in (x + torch.randn(16, 8, generator=draw), others))

    def forward(i: int) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x), y)

    def evaluate() -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(others), labels))

    return model, forward, evaluate


def run(auto: AutoLR, forward: Any, evaluate: Any, at_best: Any = lambda: None) -> list[tuple[int, float]]:
    """Train to the end, evaluating every ten steps; returns (step, evaluation loss)."""
    seen = []
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        if auto.step_count % 10 == 0:
            seen.append((auto.step_count, evaluate()))
            if auto.report_eval(seen[-1][1]):
                at_best()
    return seen


def config(**kwargs: Any) -> AutoLRConfig:
    return AutoLRConfig(warmup_steps=10, **kwargs)


def test_a_loop_is_told_that_it_overfits_and_which_state_was_the_best() -> None:
    model, forward, evaluate = memorised()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 3e-3), STEPS, config(), log_fn=events.append)
    kept: list[int] = []
    seen = run(auto, forward, evaluate, lambda: kept.append(auto.step_count))

    (told,) = (e for e in events if e["event"] == "overfitting")
    best = min(seen, key=lambda pair: pair[1])
    assert auto.evaluations.best is not None
    assert (auto.evaluations.best.step, auto.evaluations.best.loss) == best
    assert kept[-1] == best[0] == told["best_step"] < told["step"] < STEPS
    assert (told["best_eval_loss"], told["done"]) == (best[1], "keep-best")
    assert told["reason"].startswith("overfitting (evaluation loss")
    assert auto.evaluations.overfitting
    assert auto.step_count == STEPS


def test_finish_goes_back_to_the_best_state_and_anneals() -> None:
    model, forward, evaluate = memorised()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 3e-3), STEPS, config(on_overfit="finish"), log_fn=events.append)
    seen = run(auto, forward, evaluate)

    (told,) = (e for e in events if e["event"] == "overfitting")
    (anneal,) = (e for e in events if e["event"] == "adaptive_lr_anneal")
    assert told["done"] == "finish"
    assert (anneal["step"], anneal["reason"]) == (told["step"], "overfitting")
    assert auto.step_count == anneal["end"] == told["step"] + 0.1 * STEPS < STEPS
    after = [loss for step, loss in seen if step > told["step"]]
    assert after[0] < 0.5 * (told["eval_loss"] + told["best_eval_loss"])  # it went on from the best state
    assert not [e for e in events if e["event"] == "adaptive_lr_trouble"]


def test_who_keeps_the_best_state_is_asked_to_bring_it_back() -> None:
    model, forward, evaluate = memorised()
    asked: list[int] = []
    kept = {}

    def go_back(step: int) -> bool:
        asked.append(step)
        model.load_state_dict(kept["model"])
        return True

    auto = AutoLR(model, adamw(model, 3e-3), STEPS, config(on_overfit="finish"), go_back=go_back)
    run(auto, forward, evaluate, lambda: kept.update(model=copy.deepcopy(model.state_dict())))
    assert auto.evaluations.best is not None
    assert asked == [auto.evaluations.best.step] or len(asked) == 1
    assert auto.step_count < STEPS


@pytest.mark.parametrize("how", [{"on_overfit": "ignore"}, {"profile": "rules", "on_overfit": "finish"}])
def test_no_run_ends_early_that_was_not_to(how: dict[str, Any]) -> None:
    model, forward, evaluate = memorised()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 3e-3), STEPS, config(**how), log_fn=events.append)
    run(auto, forward, evaluate)
    assert auto.step_count == STEPS
    assert [e["done"] for e in events if e["event"] == "overfitting"] == ([] if len(how) == 1 else ["keep-best"])


def test_evaluations_alone_change_nothing() -> None:
    prints = []
    for on_overfit in ("ignore", "keep-best"):
        model, forward, evaluate = memorised()
        optimizer = adamw(model, 3e-3)
        auto = AutoLR(model, optimizer, 100, config(on_overfit=on_overfit))
        run(auto, forward, evaluate)
        prints.append(fingerprint(model, optimizer))
    assert prints[0] == prints[1]


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e300])
def test_a_loss_that_is_no_number_tells_nothing(loss: float) -> None:
    model, _, _ = memorised()
    auto = AutoLR(model, adamw(model), 10)
    assert not auto.report_eval(loss)
    assert auto.report_eval(torch.tensor(2.0))
    assert not auto.report_eval(loss)
    with pytest.raises(ValueError, match="loss = "):
        auto.report_eval(torch.zeros(2))


def test_a_policy_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="on_overfit = 'stop' is not allowed"):
        AutoLRConfig(on_overfit="stop")  # type: ignore[arg-type]
