"""`AutoLR` in loops as users write them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR, AutoLRConfig
from auto_lr.problems import adamw, classifier, fingerprint, sgd, train
from documented import first_example

MAKERS = {"adamw": adamw, "fused": lambda m, lr=1e-3: adamw(m, lr, fused=True), "sgd": sgd}


def mean(values: list[float]) -> float:
    """Of at least one."""
    return sum(values) / len(values)


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("counted", [False, True])
def test_a_small_model_is_trained_to_the_end_in_exactly_the_steps_it_was_given(kind: str, counted: bool) -> None:
    model, forward = classifier()
    auto = AutoLR(model, MAKERS[kind](model, 1e-5), 400, AutoLRConfig(count_search=counted))

    auto.search(forward)
    losses, lrs = train(auto, forward)

    assert auto.control is not None
    assert auto.control.bounds is not None
    assert 0 < auto.search_steps <= 0.08 * 400
    assert len(losses) == auto.step_count == 400  # those of a climb train, counted or not
    assert mean(losses[-20:]) < 0.3 * mean(losses[:5])
    assert max(lrs) >= auto.control.plan.base_lr * 0.99
    assert 0 < lrs[-1] < 0.02 * max(lrs)


def test_the_events_tell_the_run_in_order() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 400, log_fn=events.append)

    auto.search(forward)
    assert events == []
    assert (auto.begun, auto.climbing, auto.control) == (False, True, None)
    ended = 0
    while auto.climbing:
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        ended += 1
        assert auto.begun
    assert auto.control is not None
    train(auto, forward)

    landmarks = ["adaptive_lr_climb", "adaptive_lr_init", "adaptive_lr_anneal"]
    assert [e["event"] for e in events if e["event"] in [*landmarks, "warmup_complete"]] == landmarks
    assert [e["step"] for e in events] == sorted(e["step"] for e in events)
    climb, init = events[0], events[1]
    assert (climb["how"], climb["step"], init["step"]) == ("climb", ended, ended)
    assert set(climb) == {
        "event", "step", "how", "lr", "edge", "curve", "search_steps", "broke", "clear", "steps_per_cycle", "reason",
        "lr_min", "lr_max",
    }  # fmt: skip
    assert init["initial_lr"] == climb["lr"]
    assert auto.search_steps == sum(e.get("search_steps", 0) for e in events)


def test_without_a_search_the_rate_warms_up_from_almost_nothing_to_that_of_the_optimizer() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 2e-3), 400, AutoLRConfig(warmup_fraction=0.1), events.append)

    _, lrs = train(auto, forward)

    assert lrs[:40] == pytest.approx([2e-3 * (i + 1) / 40 for i in range(40)])
    assert [e["step"] for e in events if e["event"] == "warmup_complete"] == [40]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_a_batch_without_a_finite_loss_changes_neither_weights_nor_moments(kind: str, spoil: float) -> None:
    model, forward = classifier()
    optimizer = MAKERS[kind](model, 1e-3)
    auto = AutoLR(model, optimizer, 400)
    for _ in range(3):
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
    before = fingerprint(model, optimizer)[:2]

    loss = forward(auto.batch) * spoil
    loss.backward()
    auto.step(loss)

    assert fingerprint(model, optimizer)[:2] == before
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", MAKERS)
def test_ten_bad_batches_are_skipped_and_braked_and_training_goes_on(kind: str) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, MAKERS[kind](model, 1e-3), 400, log_fn=events.append)

    auto.search(forward)
    losses, _ = train(auto, lambda i: forward(i) * (math.nan if 180 <= i < 190 else 1.0))

    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert mean(losses[-20:]) < 0.4 * mean(losses[:5])
    brakes = [e for e in events if e.get("reason") == "non_finite_loss"]
    skips = [e for e in events if e["event"] == "adaptive_lr_trouble" and e["rung"] == "skip"]
    assert brakes
    assert brakes[0]["new_lr"] == pytest.approx(brakes[0]["old_lr"] / 2)
    assert len(skips) == 10


@pytest.mark.parametrize("kind", MAKERS)
def test_param_groups_keep_the_ratio_of_their_rates(kind: str) -> None:
    model, forward = classifier()
    groups = [{"params": model[0].parameters(), "lr": 1e-3}, {"params": model[3].parameters(), "lr": 1e-4}]
    optimizer = type(MAKERS[kind](model, 1e-3))(groups, lr=1.0)
    auto = AutoLR(model, optimizer, 300)
    ratios = []

    auto.search(forward)
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        auto.step(loss)
        ratios.append(optimizer.param_groups[1]["lr"] / optimizer.param_groups[0]["lr"])

    assert ratios == pytest.approx([0.1] * len(ratios))


def test_training_is_repeatable_bit_for_bit() -> None:
    def run() -> list[Any]:
        model, forward = classifier(dropout=0.1)
        optimizer = adamw(model)
        auto = AutoLR(model, optimizer, 300)
        auto.search(forward)
        train(auto, forward)
        return fingerprint(model, optimizer)

    assert run() == run()


def test_gradients_are_clipped_to_the_norm_of_the_settings() -> None:
    weight = nn.Linear(1, 1, bias=False)
    auto = AutoLR(weight, sgd(weight, 1.0), 10, AutoLRConfig(max_grad_norm=0.5, anneal_fraction=0.0))
    start = float(weight.weight.detach())

    loss = 100 * weight.weight.sum()
    loss.backward()
    auto.step(loss)

    assert start - float(weight.weight.detach()) == pytest.approx(0.5, rel=1e-4)


def test_a_run_too_short_to_search_trains_at_the_rate_of_the_optimizer() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model, 2e-3), 79, AutoLRConfig(anneal_fraction=0.0))

    found = auto.search(forward)
    losses, lrs = train(auto, forward)

    assert found is not None
    assert (found.lr, found.steps, len(losses)) == (None, 0, 79)
    assert "too few steps for a search (79; it takes 80 or more)" in found.reason
    assert lrs[3] == pytest.approx(2e-3)


@pytest.mark.parametrize("steps", [0, -5])
def test_a_run_without_steps_is_refused(steps: int) -> None:
    model, _ = classifier()

    with pytest.raises(ValueError, match=f"steps = {steps} is not allowed"):
        AutoLR(model, adamw(model), steps)


def test_a_run_that_cannot_be_saved_stops_with_advice_and_finite_weights() -> None:
    from aios.errors import RunError

    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 1000)

    with pytest.raises(RunError, match="learning rate"):
        train(auto, lambda i: forward(i) * (math.nan if i > 50 else 1.0))

    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("searches", [True, False])
def test_a_sparse_gradient_is_refused_by_name(searches: bool) -> None:
    model = nn.ModuleDict({"words": nn.Embedding(10, 4, sparse=True)})
    auto = AutoLR(model, torch.optim.SGD(model.parameters(), lr=0.1), 1000)

    def forward(i: int) -> torch.Tensor:
        return (model["words"](torch.tensor([i % 10])) ** 2).mean()

    def run() -> None:
        if searches:
            auto.search(forward)
        train(auto, forward)

    with pytest.raises(ValueError, match=r"words.weight is sparse .*sparse=False"):
        run()


def test_the_example_of_the_documentation_runs_and_learns(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    example = first_example("auto_lr.md", "In your own loop")

    exec(example, names)

    forward: Callable[[int], torch.Tensor] = names["forward"]
    assert len([line for line in example.splitlines() if line.strip()]) <= 15
    assert names["auto"].finished
    assert "adaptive_lr_climb" in capsys.readouterr().out
    variance_of_the_target = float(torch.randn(10_000, 8).sin().sum(1).var())
    assert mean([float(forward(i).detach()) for i in range(5000, 5020)]) < 0.05 * variance_of_the_target


@pytest.mark.parametrize("at", [0, 60, 150, 350], ids=["before", "after the climb", "middle", "anneal"])
def test_a_run_saved_and_gone_on_with_ends_as_if_it_had_not_been(at: int, tmp_path: Path) -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    straight = AutoLR(model, optimizer, 400)
    straight.search(forward)
    for _ in range(at):
        forward(straight.batch).backward()
        straight.step(forward(straight.batch))
    parts = {"auto": straight.state_dict(), "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(parts, tmp_path / "run.pt")
    losses, lrs = train(straight, forward)

    other, forward = classifier()
    fresh = adamw(other)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    other.load_state_dict(saved["model"])
    fresh.load_state_dict(saved["optimizer"])
    resumed = AutoLR(other, fresh, 400)
    resumed.load_state_dict(saved["auto"])
    assert train(resumed, forward) == (losses, lrs)
    assert fingerprint(other, fresh) == fingerprint(model, optimizer)


def test_finish_now_anneals_over_a_tenth_and_survives_a_resume() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 400)
    for _ in range(100):
        forward(auto.batch).backward()
        auto.step(forward(auto.batch))
    auto.finish_now()
    resumed = AutoLR(model, optimizer, 400)
    resumed.load_state_dict(auto.state_dict())
    _, lrs = train(resumed, forward)
    assert len(lrs) == 40
    assert lrs == sorted(lrs, reverse=True)
    assert resumed.finished


@pytest.mark.parametrize("settings", [{"warmup_fraction": -0.1}, {"anneal_fraction": 1.5}, {"max_grad_norm": 0.0}])
def test_settings_out_of_range_are_named(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        AutoLRConfig(**settings)


def test_calls_out_of_turn_are_refused() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 400)
    with pytest.raises(ValueError, match="training has not begun"):
        auto.finish_now()
    loss = forward(0)
    loss.backward()
    auto.step(loss)
    with pytest.raises(ValueError, match="training has begun"):
        auto.load_state_dict(auto.state_dict())


def test_an_anneal_that_begins_in_a_step_without_a_loss_is_told_all_the_same() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 100, log_fn=events.append)
    auto.pause_at(69)
    train(auto, forward)
    auto.pause_at(100)
    auto.step_count = 70  # where the anneal begins
    train(auto, forward)
    (told,) = (event for event in events if event["event"] == "adaptive_lr_anneal")
    assert (told["start"], told["end"]) == (70, 100)
