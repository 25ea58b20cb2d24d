"""The search on real models through `AutoLR`: a fresh one climbs and keeps it, a trained one is raced and restored."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from auto_lr.problems import Forward, adamw, classifier, fingerprint, peaks_of, train
from auto_lr.searches import MAKERS, of, step


def mean_loss(forward: Forward) -> float:
    """On batches that no run here meets."""
    with torch.no_grad():
        return sum(float(forward(batch)) for batch in range(9000, 9010)) / 10


# --- a fresh model ---


@pytest.mark.parametrize("kind", MAKERS)
def test_a_fresh_model_climbs_and_is_trained_to_the_end_in_exactly_its_steps(kind: str) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, MAKERS[kind](model), 400, log_fn=events.append)

    assert auto.search(forward) is None
    assert auto.climbing
    losses, lrs = train(auto, forward)

    (climb,) = of(events, "adaptive_lr_climb")
    assert len(losses) == auto.step_count == auto.batch == 400
    assert not auto.climbing
    assert climb["lr"] is not None
    assert lrs[climb["step"]] == climb["lr"]  # no other warm-up
    assert auto.search_steps == sum(e.get("search_steps", 0) for e in events) <= 0.08 * 400
    assert sum(losses[-20:]) < 0.4 * sum(losses[:20])


@pytest.mark.parametrize("kind", MAKERS)
def test_what_the_climb_has_learned_is_kept(kind: str) -> None:
    model, forward = classifier()
    auto = AutoLR(model, MAKERS[kind](model), 400)
    auto.search(forward)
    start = mean_loss(forward)

    while auto.climbing:
        step(auto, forward)

    assert 0 < auto.step_count < 0.6 * 400 + 12
    assert mean_loss(forward) < 0.7 * start


@pytest.mark.parametrize("kind", MAKERS)
def test_at_the_edge_it_goes_back_to_where_it_says(kind: str) -> None:
    """Weights, moments and all: as they were so many steps before as it counts as lost."""
    model, forward = classifier()
    optimizer = MAKERS[kind](model)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    auto.search(forward)
    inner = getattr(optimizer, "inner", optimizer)
    seen = [fingerprint(model, inner)[:2]]

    while auto.climbing:
        step(auto, forward)
        seen.append(fingerprint(model, inner)[:2])

    (climb,) = of(events, "adaptive_lr_climb")
    assert climb["step"] == auto.step_count == len(seen) - 1
    assert climb["search_steps"] == auto.search_steps >= 1
    assert seen[-1] == seen[climb["step"] - climb["search_steps"]]
    assert all(p.grad is None for p in model.parameters())


def test_rates_rise_through_the_climb_and_are_told_with_their_losses() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 400, log_fn=events.append)
    auto.search(forward)
    lrs = []
    while auto.climbing:
        lrs.append(step(auto, forward)[1])

    climb, init = events[0], events[1]
    assert (climb["event"], init["event"]) == ("adaptive_lr_climb", "adaptive_lr_init")
    curve = climb["curve"]
    cycle = climb["steps_per_cycle"]
    in_cycles = lrs[-cycle * len(curve) :]
    assert lrs[: -len(in_cycles)] == sorted(lrs[: -len(in_cycles)])  # until an update shows
    assert [lr for lr, _ in curve] == peaks_of(in_cycles, cycle)
    assert [lr for lr, _ in curve] == sorted(lr for lr, _ in curve)
    assert curve[-1][0] == climb["edge"]
    assert (init["initial_lr"], init["warmup_steps"]) == (climb["lr"], 0)
    assert (init["lr_min"], init["lr_max"]) == (climb["lr_min"], climb["lr_max"])
    assert climb["lr_min"] < climb["lr"] < climb["lr_max"]
    assert climb["lr"] < climb["edge"]


@pytest.mark.parametrize("kind", MAKERS)
def test_the_rate_of_the_optimizer_does_not_matter_to_the_last_bit(kind: str) -> None:
    runs = []
    for lr in (1e-8, 10.0):
        model, forward = classifier(dropout=0.1)
        auto = AutoLR(model, MAKERS[kind](model, lr), 300)
        auto.search(forward)
        runs.append((train(auto, forward), [p.tolist() for p in model.parameters()]))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("kind", ["adamw", "sgd", "rmsprop"])
@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 4, pytest.param(30, marks=pytest.mark.slow)])
def test_gone_on_with_inside_the_climb_it_is_the_unbroken_run(kind: str, at: int) -> None:
    model, forward = classifier(dropout=0.1)
    optimizer = MAKERS[kind](model)
    straight = AutoLR(model, optimizer, 400)
    straight.search(forward)
    while straight.step_count < at:
        step(straight, forward)
    assert straight.climbing
    straight.keep_snapshot()
    parts = [straight.state_dict(), model.state_dict(), optimizer.state_dict(), torch.get_rng_state()]
    saved = copy.deepcopy(parts)
    ends = train(straight, forward), fingerprint(model, optimizer), straight.search_steps

    model, forward = classifier(dropout=0.1)
    optimizer = MAKERS[kind](model)
    model.load_state_dict(saved[1])
    optimizer.load_state_dict(saved[2])
    resumed = AutoLR(model, optimizer, 400)
    torch.set_rng_state(saved[3])
    resumed.load_state_dict(saved[0])
    assert resumed.climbing
    assert (resumed.begun, resumed.step_count) == (True, at)
    assert (train(resumed, forward), fingerprint(model, optimizer), resumed.search_steps) == ends


def test_a_checkpoint_past_the_knee_does_not_keep_what_the_edge_breaks() -> None:
    """Checkpoints copy the state to go back to; the run must not end up worse for one."""
    ends = []
    for saves in (False, True):
        model, forward = classifier()
        auto = AutoLR(model, adamw(model), 1000)
        auto.search(forward)
        while auto.climbing:
            step(auto, forward)
            if saves and auto.climbing:
                auto.keep_snapshot()
        ends.append(mean_loss(forward))
    assert ends[1] < ends[0] + 0.1


@pytest.mark.parametrize("pause", [1, 20, 39, *(pytest.param(at, marks=pytest.mark.slow) for at in (38, 40, 60))])
def test_a_pause_in_or_near_the_climb_changes_nothing(pause: int) -> None:
    runs = []
    for pauses in (False, True):
        model, forward = classifier()
        auto = AutoLR(model, adamw(model), 300)
        auto.search(forward)
        if pauses:
            auto.pause_at(pause)
        part = train(auto, forward)
        assert auto.step_count == (pause if pauses else 300)
        auto.pause_at(300)
        rest = train(auto, forward) if pauses else ([], [])
        runs.append((part[0] + rest[0], part[1] + rest[1]))
    assert runs[0] == runs[1]


@pytest.mark.parametrize("after", [1, 10, 30])
def test_finish_now_inside_the_climb_ends_it_and_anneals(after: int) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 1e-3), 400, log_fn=events.append)
    auto.search(forward)
    for _ in range(after):
        step(auto, forward)

    auto.finish_now()
    losses, lrs = train(auto, forward)

    assert not auto.climbing
    assert len(of(events, "adaptive_lr_climb")) == 1
    assert auto.finished
    assert len(losses) == 40
    assert 0 < lrs[-1] < 0.1 * max(lrs)
    assert lrs[20:] == sorted(lrs[20:], reverse=True)  # a race leaves a warm-up to be done first


@pytest.mark.parametrize("at", [0, 3, 20, 30])
def test_a_batch_without_a_finite_loss_in_the_climb_is_skipped(at: int) -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    auto.search(forward)
    while auto.step_count < at:
        step(auto, forward)
    before = fingerprint(model, optimizer)[:2]

    step(auto, lambda batch: forward(batch) * math.nan)
    assert fingerprint(model, optimizer)[:2] == before
    losses, _ = train(auto, forward)

    (climb,) = of(events, "adaptive_lr_climb")
    assert climb["lr"] is not None
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(losses[-20:]) < 20


def test_a_model_that_breaks_for_good_beyond_some_rate_comes_back_from_there() -> None:
    model, forward = classifier()

    def fragile(batch: int) -> Tensor:
        too_large = any(float(p.detach().abs().max()) > 0.35 for p in model.parameters())
        return forward(batch) * (math.inf if too_large else 1.0)

    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 400, log_fn=events.append)
    auto.search(fragile)
    while auto.climbing:
        step(auto, fragile)

    (climb,) = of(events, "adaptive_lr_climb")
    assert "no longer finite" in climb["reason"]
    assert climb["lr"] is not None
    assert math.isfinite(mean_loss(fragile))


def test_where_the_climb_sees_no_fall_it_takes_the_middle_of_what_is_known() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 2e-3), 400, log_fn=events.append)

    def unlearnable(batch: int) -> Tensor:
        return forward(batch) - forward(batch).detach() + 4.0  # learns, but the loss does not show it

    auto.search(unlearnable)
    train(auto, unlearnable)

    (climb,) = of(events, "adaptive_lr_climb")
    (init,) = of(events, "adaptive_lr_init")
    first, edge = climb["curve"][0][0], climb["edge"]
    assert climb["clear"] is False
    assert climb["lr"] == pytest.approx((first * edge) ** 0.5)
    assert "did not fall clearly" in climb["reason"]
    assert init["initial_lr"] == climb["lr"]
    assert init["warmup_steps"] > 0
    assert not of(events, "adaptive_lr_race")
    assert not of(events, "not_learning")  # nothing had been promised
    assert auto.step_count == 400


def test_setting_up_a_climb_changes_nothing() -> None:
    model, forward = classifier(dropout=0.2)
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 400)
    before, rng, numbers = fingerprint(model, optimizer), torch.get_rng_state(), random.getstate()

    auto.search(forward)

    assert fingerprint(model, optimizer) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == numbers
    assert (auto.begun, auto.step_count, auto.batch, auto.search_steps, auto.control) == (False, 0, 0, 0, None)


def test_setting_up_a_climb_leaves_running_statistics_alone() -> None:
    model, forward = normalized()
    optimizer = adamw(model)
    before = fingerprint(model, optimizer)
    auto = AutoLR(model, optimizer, 400)
    for group in before[2]:
        group["initial_lr"] = group["lr_written"] = group["lr"]

    auto.search(forward)

    assert fingerprint(model, optimizer) == before


def normalized() -> tuple[nn.Module, Forward]:
    """A model with running statistics."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def forward(batch: int) -> Tensor:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch))
        return nn.functional.cross_entropy(model(x), x[:, :10].argmax(1))

    return model, forward
