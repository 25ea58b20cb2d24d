"""The search on real models through `AutoLR`: a fresh one climbs and keeps it, a trained one is raced and restored."""

from __future__ import annotations

import copy
import math
import random
import statistics
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig, Found
from auto_lr.problems import Forward, adamw, classifier, fingerprint, peaks_of, sgd, train, train_plainly


def rmsprop(model: nn.Module, lr: float = 1e-4) -> torch.optim.Optimizer:
    """Its mean of squares starts at zero, so that the first updates are ten times as large as the later ones."""
    return torch.optim.RMSprop(model.parameters(), lr=lr)


def fused(model: nn.Module, lr: float = 1e-3) -> torch.optim.Optimizer:
    return adamw(model, lr, fused=True)


class Wrapped(torch.optim.Optimizer):
    """Moves an average of the weights along with them, in an attribute that torch knows nothing of."""

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        super().__init__(model.parameters(), {"lr": lr})
        self.inner = adamw(model, lr)
        self.param_groups = self.inner.param_groups
        self.average = [p.detach().clone() for p in model.parameters()]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.inner.step()
        for average, parameter in zip(self.average, self.param_groups[0]["params"], strict=True):
            average.lerp_(parameter.detach(), 0.1)


MAKERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": adamw,
    "fused": fused,
    "sgd": sgd,
    "rmsprop": rmsprop,
    "wrapped": Wrapped,
}


def trained(dropout: float = 0.0) -> tuple[nn.Module, Forward]:
    """A model that has learned before."""
    model, forward = classifier(dropout=dropout)
    train_plainly(adamw(model, 1e-2), forward, 200)
    return model, forward


def mean_loss(forward: Forward) -> float:
    """On batches that no run here meets."""
    with torch.no_grad():
        return sum(float(forward(batch)) for batch in range(9000, 9010)) / 10


def step(auto: AutoLR, forward: Forward) -> tuple[float, float]:
    """One step; its loss and rate."""
    loss = forward(auto.batch)
    loss.backward()
    return float(loss.detach()), auto.step(loss)


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


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

    assert 0 < auto.step_count < 0.4 * 400
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
    resumed.load_state_dict(saved[0], forward)
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


@pytest.mark.parametrize("can_race", [True, False])
def test_where_the_climb_tells_nothing_there_is_a_race_or_the_rate_asked_for(can_race: bool) -> None:
    model, forward = classifier()
    events: list[dict[str, Any]] = []
    auto = AutoLR(model, adamw(model, 2e-3), 400, log_fn=events.append)

    def unlearnable(batch: int) -> Tensor:
        return forward(batch) - forward(batch).detach() + 4.0  # learns, but the loss does not show it

    auto.search(unlearnable if can_race else None)
    train(auto, unlearnable)

    (climb,) = of(events, "adaptive_lr_climb")
    (init,) = of(events, "adaptive_lr_init")
    assert climb["lr"] is climb["lr_min"] is climb["lr_max"] is None
    assert "did not fall clearly" in climb["reason"]
    assert auto.step_count == 400
    if can_race:
        race, *_ = of(events, "adaptive_lr_race")
        assert race["lr"] is not None
        assert init["initial_lr"] == race["lr"]
        assert init["warmup_steps"] > 0
    else:
        assert not of(events, "adaptive_lr_race")
        assert init["initial_lr"] == 2e-3


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
        group["initial_lr"] = group["lr"]

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


# --- a model that was trained before ---


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("micro_batches", [1, 2])
def test_a_trained_model_is_raced_and_taken_back_bit_for_bit(kind: str, micro_batches: int) -> None:
    model, forward = trained(dropout=0.2)
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
    model, forward = trained()
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
    for make in (classifier, trained):
        model, forward = make()
        events: list[dict[str, Any]] = []
        auto = AutoLR(model, MAKERS[kind](model), steps, log_fn=events.append)
        auto.search(forward)
        auto.pause_at(steps // 2)
        train(auto, forward)
        assert auto.search_steps == sum(e.get("search_steps", 0) for e in events) <= 0.08 * steps


def test_races_restore_running_statistics_too() -> None:
    learned, _ = trained()
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
    model, forward = trained()
    lr = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)

    found = AutoLR(model, optimizer, 400).search(forward)

    assert found is not None
    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(1e-3)


def test_a_repeated_race_gives_the_same_result_whatever_rate_the_optimizer_has() -> None:
    found = []
    for lr in (1e-5, 1e-1):
        model, forward = trained(dropout=0.2)
        auto = AutoLR(model, adamw(model, lr), 400)
        found += [auto.look(forward), auto.look(forward), auto.search(forward)]
    assert found == [found[0]] * 6


class Saved:
    """What a graph holds on to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_a_race_that_accumulates_is_that_of_the_large_batch_with_one_graph_at_a_time() -> None:
    def raced(how: str) -> Found:
        model, forward = trained()
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
    model, forward = trained(dropout=0.2)
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
    model, forward = trained()
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


@pytest.mark.parametrize("make", [classifier, trained])
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


@pytest.mark.parametrize("make", [trained, classifier])
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
