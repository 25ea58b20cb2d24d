"""Models that were trained before are raced, and a look takes everything back."""

from __future__ import annotations

import random
import statistics
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig, Found
from auto_lr.problems import adamw, classifier, fingerprint, sgd, train, train_plainly, trained_classifier
from auto_lr.searches import MAKERS, of, step

# --- a model that was trained before ---


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_trained_model_is_raced_and_taken_back_bit_for_bit(kind: str, micro_batches: int) -> None:
    model, forward = trained_classifier(dropout=0.2)
    optimizer = MAKERS[kind](model)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 600, log_fn=events.append)

    def state() -> list[Any]:
        averages = [t.tolist() for t in getattr(optimizer, "average", [])]
        return [fingerprint(model, getattr(optimizer, "inner", optimizer)), averages]

    before, rng, numbers = state(), torch.get_rng_state(), random.getstate()

    found = auto.search(forward, micro_batches)

    assert state() == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == numbers
    assert all(p.grad is None for p in model.parameters())
    assert found is not None
    assert (found.how, found.edge) == ("race", None)
    assert len(found.rates) >= 3
    assert found.lr is not None
    assert found.rates[0] <= found.lr <= found.rates[-1]
    assert not auto.climbing
    (race,) = events
    assert (race["event"], race["step"], race["lr"]) == ("adaptive_lr_race", 0, found.lr)
    assert race["curve"] == [list(point) for point in zip(found.rates, found.losses, strict=True)]
    assert 0 < auto.search_steps == found.steps == race["search_steps"] <= 0.08 * 600


@pytest.mark.parametrize("counted", [False, True])
def test_after_a_race_it_warms_up_and_trains_to_the_end(counted: bool) -> None:
    model, forward = trained_classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 400, AutoLRConfig(count_search=counted), events.append)

    found = auto.search(forward)
    losses, lrs = train(auto, forward)

    assert found is not None
    assert found.lr is not None
    spent = auto.search_steps if counted else 0
    assert (len(losses), auto.step_count) == (400 - spent, 400)
    (init,) = of(events, "adaptive_lr_init")
    (warm,) = of(events, "warmup_complete")
    warmup = init["warmup_steps"]
    assert warmup > 0
    assert warm["step"] == (found.steps if counted else 0) + warmup
    assert lrs[:warmup] == pytest.approx([found.lr * (i + 1) / warmup for i in range(warmup)])
    assert sum(losses[-20:]) < sum(losses[:20])


@pytest.mark.parametrize("steps", [80, 150, 300, *(pytest.param(n, marks=pytest.mark.slow) for n in (90, 1000))])
@pytest.mark.parametrize("kind", ["adamw", "sgd"])
def test_finding_the_rate_stays_within_its_part_of_the_steps(steps: int, kind: str) -> None:
    for make in (classifier, trained_classifier):
        model, forward = make()
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, MAKERS[kind](model), steps, log_fn=events.append)
        auto.search(forward)
        auto.pause_at(steps // 2)
        train(auto, forward)
        assert auto.search_steps == sum(e.get("search_steps", 0) for e in events) <= 0.08 * steps


def test_races_restore_running_statistics_too() -> None:
    learned, _ = trained_classifier()
    layers = list(learned.children())
    model = nn.Sequential(layers[0], nn.BatchNorm1d(64), *layers[1:])
    optimizer = adamw(model, 1e-2)
    auto = AutoLR(model, optimizer, 400)
    before = fingerprint(model, optimizer)

    found = auto.search(
        lambda i: model(torch.randn(16, 16, generator=torch.Generator().manual_seed(i))).square().mean()
    )

    assert found is not None
    assert found.how == "race"
    assert fingerprint(model, optimizer) == before


def test_a_tensor_learning_rate_keeps_value_and_tensor_through_a_race() -> None:
    model, forward = trained_classifier()
    lr = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)

    found = AutoLR(model, optimizer, 400).search(forward)

    assert found is not None
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(1e-3)


def test_a_repeated_race_gives_the_same_result_whatever_rate_the_optimizer_has() -> None:
    found = []
    for lr in (1e-5, 1e-1):
        model, forward = trained_classifier(dropout=0.2)
        auto = AutoLR(model, adamw(model, lr), 400)
        found += [auto.look(forward), auto.look(forward), auto.search(forward)]
    assert found == [found[0]] * 6


class Saved:
    """What a graph holds on to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_a_race_that_accumulates_is_that_of_the_large_batch_with_one_graph_at_a_time() -> None:
    def raced(how: str) -> Found:
        model, forward = trained_classifier()
        held: weakref.WeakSet[Saved] = weakref.WeakSet()

        def save(tensor: Tensor) -> Saved:
            saved = Saved(tensor)
            held.add(saved)
            return saved

        def watched(number: int) -> Tensor:
            assert not held, "the graph of the micro-batch before is still there"
            with torch.autograd.graph.saved_tensors_hooks(save, lambda saved: saved.tensor):
                return forward(number)

        def at_once(batch: int) -> Tensor:
            return (forward(2 * batch) + forward(2 * batch + 1)) / 2

        auto = AutoLR(model, sgd(model), 400)
        found = auto.search(at_once) if how == "at once" else auto.search(watched, micro_batches=2)
        assert found is not None
        return found

    one_by_one, at_once = raced("one by one"), raced("at once")

    assert one_by_one.rates == pytest.approx(at_once.rates, rel=1e-3)
    assert one_by_one.losses == pytest.approx(at_once.losses, rel=1e-3)


@pytest.mark.parametrize("fails_at_call", [1, 2, 5, 12, 30, 45])
def test_an_error_of_the_closure_surfaces_after_everything_is_restored(fails_at_call: int) -> None:
    model, forward = trained_classifier(dropout=0.2)
    optimizer = adamw(model)
    train_plainly(optimizer, forward, 3)
    auto, calls = AutoLR(model, optimizer, 600), [0]
    before, rng, numbers = fingerprint(model, optimizer), torch.get_rng_state(), random.getstate()

    def failing(batch: int) -> Tensor:
        calls[0] += 1
        if calls[0] == fails_at_call:
            raise OSError("the data are gone")
        return forward(batch)

    with pytest.raises(OSError, match="the data are gone"):
        auto.search(failing)

    assert fingerprint(model, optimizer) == before
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == numbers
    assert (auto.step_count, auto.search_steps, auto.begun) == (0, 0, False)
    found = auto.search(forward)
    assert found is not None
    assert found.lr is not None


def test_without_a_way_to_try_a_trained_model_climbs_too() -> None:
    model, forward = trained_classifier()
    auto = AutoLR(model, adamw(model), 300)
    assert auto.search() is None
    assert auto.climbing
    assert len(train(auto, forward)[0]) == auto.step_count == 300


def test_a_search_after_the_first_step_is_refused() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 300)
    auto.search(forward)
    step(auto, forward)
    with pytest.raises(ValueError, match="before the first step"):
        auto.search(forward)


# --- only to look ---


@pytest.mark.parametrize("make", [classifier, trained_classifier])
@pytest.mark.parametrize("kind", MAKERS)
def test_a_look_settles_nothing_and_takes_everything_back(make: Any, kind: str) -> None:
    model, forward = make(dropout=0.2)
    optimizer = MAKERS[kind](model)
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    inner = getattr(optimizer, "inner", optimizer)
    before, state = fingerprint(model, inner), auto.state_dict()
    rng, numbers = torch.get_rng_state(), random.getstate()

    found = auto.look(forward)

    assert found.how == ("climb" if make is classifier else "race")
    assert found.lr is not None
    assert fingerprint(model, inner) == before
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == numbers
    assert (auto.begun, auto.climbing, auto.state_dict(), events) == (False, False, state, [])


def test_a_look_finds_what_the_run_then_finds() -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model), 400, log_fn=events.append)
    looked = auto.look(forward)
    auto.search(forward)
    train(auto, forward)
    (climb,) = of(events, "adaptive_lr_climb")
    assert climb["lr"] == looked.lr
    assert climb["curve"] == [list(point) for point in zip(looked.rates, looked.losses, strict=True)]


@pytest.mark.parametrize("make", [trained_classifier, classifier])
def test_a_loss_that_itself_takes_gradients_is_searched_as_any_other(make: Any) -> None:
    """As of physics, of energies, of a penalty on gradients: it cannot be had under no_grad."""
    model, forward = make()

    def penalised(batch: int) -> Tensor:
        x = torch.randn(8, 16, generator=torch.Generator().manual_seed(batch), requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return forward(batch) + 1e-2 * slope.square().mean()

    auto = AutoLR(model, sgd(model), 400)
    auto.search(penalised)
    losses, _ = train(auto, penalised)
    assert statistics.fmean(losses[-20:]) < 0.8 * statistics.fmean(losses[:20])
