"""The range test: its decisions on curves made by hand, and the whole of it on a real model through `AutoLR`."""

from __future__ import annotations

import math
import random
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from aios.auto_lr.api import AutoLR
from aios.auto_lr.search import (
    RangePoint,
    RangeTestConfig,
    find_break,
    find_steepest,
    next_lr,
    points_for,
    run_range_test,
    suggest,
)
from auto_lr.problems import Forward, adamw, classifier, fingerprint, sgd, train_plainly

CONFIG = RangeTestConfig()


def curve(
    *changes: float, first_lr: float = 1e-5, factor: float = 10**0.25, reference: float = 4.0
) -> list[RangePoint]:
    """Points at evenly spaced rates whose losses differ by `changes` from a constant reference."""
    return [RangePoint(first_lr * factor**i, reference + c, reference) for i, c in enumerate(changes)]


FROM_SCRATCH = curve(0, -0.001, -0.02, -0.05, -0.1, -0.2, -0.4, -1.2, -1.5, -1.55, -1.56, 0.5)
"""Falls fastest between points 6 and 7, breaks at the last one."""


# --- the decisions ---


def test_a_curve_with_a_clear_steepest_descent_goes_by_it() -> None:
    lr, reason = suggest(FROM_SCRATCH, CONFIG)

    limit = FROM_SCRATCH[11 - 1 - CONFIG.lag].lr
    steepest = find_steepest(FROM_SCRATCH[:11], CONFIG)
    assert steepest is not None
    assert FROM_SCRATCH[5].lr <= steepest <= FROM_SCRATCH[7].lr
    assert lr is not None
    assert limit / CONFIG.safety < lr <= steepest
    assert "fell fastest" in reason


def test_a_trained_model_whose_loss_hardly_falls_gets_a_part_of_the_highest_stable_rate() -> None:
    points = curve(0, 0, 0.001, -0.005, -0.01, -0.02, -0.02, -0.01, 0.1, 2.0)

    lr, reason = suggest(points, CONFIG)

    limit = points[9 - 1 - CONFIG.lag].lr
    assert lr == pytest.approx(limit / CONFIG.trained_safety)
    assert "hardly fell" in reason


def test_coarse_points_below_the_break_do_not_drag_the_limit_down_by_decades() -> None:
    rates = [1e-5, 1e-4, 1e-3, 3e-3, 4.2e-3]  # responds only just before it breaks
    changes = [-0.0001, 0.0, -0.0009, -0.006, 0.4]
    points = [RangePoint(lr, 1.5 + change, 1.5) for lr, change in zip(rates, changes, strict=True)]

    lr, _ = suggest(points, CONFIG)

    assert lr == pytest.approx(3e-3 / 1.4**CONFIG.lag / CONFIG.trained_safety)


def test_a_descent_that_is_fastest_just_before_the_break_does_not_count() -> None:
    points = curve(0, -0.01, -0.02, -0.05, -0.1, -0.2, -0.4, -1.4, 3.0)

    lr, _ = suggest(points, CONFIG)

    assert lr == pytest.approx(points[8 - 1 - CONFIG.lag].lr / CONFIG.safety)


def test_no_suggestion_and_a_reason_where_the_curve_cannot_tell_one() -> None:
    nan = math.nan
    for points, why in (
        ([], "not finite"),
        ([RangePoint(1e-8, nan, nan)], "not finite"),
        (curve(nan), "did not respond"),
        (curve(*[0.0] * 12), "did not break"),
        (curve(0, 0, 0, 0, 0, 0, 0, 5.0), "did not respond"),
        (curve(0, -0.1, 9.0), "too soon"),
    ):
        lr, reason = suggest(points, CONFIG)
        assert lr is None
        assert why in reason


def test_noise_between_batches_is_no_break_but_a_jump_nan_or_inf_is() -> None:
    noisy = [RangePoint(p.lr, p.loss + n, p.reference + n) for p, n in zip(FROM_SCRATCH, [0.3, -0.3] * 8, strict=False)]

    assert find_break(noisy[:-1], CONFIG) is None
    assert find_break([*noisy[:5], RangePoint(1.0, math.nan, 4.0)], CONFIG) == 5
    assert find_break([*noisy[:5], RangePoint(1.0, math.inf, 4.0)], CONFIG) == 5
    assert find_break([*noisy[:5], RangePoint(1.0, 7.0, 4.0), RangePoint(2.0, 4.0, 4.0)], CONFIG) == 5
    assert find_break([*noisy[:5], RangePoint(1.0, 4.1, 4.0)], CONFIG) is None


@given(st.lists(st.floats(-3, 1), min_size=1, max_size=40), st.integers(4, 40))
def test_the_ramp_rises_until_it_breaks_or_is_used_up(changes: list[float], total: int) -> None:
    points: list[RangePoint] = []
    for change in changes:
        lr = next_lr(points, total, CONFIG)
        if lr is None:
            break
        assert not points or points[-1].lr < lr <= CONFIG.last_lr
        assert len(points) < total
        points.append(RangePoint(lr, 4 + change, 4.0))
        broke = find_break(points, CONFIG)
        assert broke is None or broke == len(points) - 1


def test_a_ramp_that_nothing_breaks_reaches_the_last_rate_and_ends() -> None:
    points: list[RangePoint] = []
    while (lr := next_lr(points, 36, CONFIG)) is not None:
        points.append(RangePoint(lr, 4.0, 4.0))

    assert points[0].lr == CONFIG.first_lr
    assert points[-1].lr == CONFIG.last_lr


@given(st.lists(st.tuples(st.floats(), st.floats()), max_size=40))
def test_whatever_the_losses_the_suggestion_lies_below_the_break(losses: list[tuple[float, float]]) -> None:
    points = [RangePoint(1e-8 * 1.8**i, loss, reference) for i, (loss, reference) in enumerate(losses)]

    broke = find_break(points, CONFIG)
    lr, reason = suggest(points, CONFIG)
    next_lr(points, 36, CONFIG)
    find_steepest(points[:broke], CONFIG)

    assert reason
    assert lr is None or (broke is not None and 0 < lr < points[broke].lr)


# --- the budget ---


class Unbreakable:
    """A trial that never breaks, so that every point is used; counts its work."""

    def __init__(self, bad_batches: frozenset[int] = frozenset()) -> None:
        self.trained: list[int] = []
        self.evaluated = 0
        self.bad = bad_batches

    def evaluate(self, batch: int) -> float:
        """A finite loss, but for the bad batches."""
        self.evaluated += 1
        return math.nan if batch in self.bad else 4.0

    def train(self, batch: int, lr: float) -> float:
        """Responds at once and goes on falling."""
        self.trained.append(batch)
        return 3.9 - 0.01 * len(self.trained)


@given(st.integers(1, 5000), st.floats(0.01, 0.5))
@settings(deadline=None)
def test_the_search_never_takes_more_than_its_budget(steps: int, budget: float) -> None:
    trial = Unbreakable()
    config = RangeTestConfig(budget=budget)

    found = run_range_test(trial, steps, 0, config)

    assert found.steps <= budget * steps
    assert found.steps == len(trial.trained) + math.ceil(trial.evaluated / 3)
    assert trial.evaluated == points_for(steps, config)


def test_too_few_steps_mean_no_search_and_the_reason_says_how_many_it_takes() -> None:
    needed = 275  # 16 points cost 22 steps, which are 8 % of it

    too_few, enough = (run_range_test(Unbreakable(), n, 0, CONFIG) for n in (needed - 1, needed))

    assert (too_few.points, too_few.suggestion, too_few.steps) == ((), None, 0)
    assert f"{needed - 1} of {needed}" in too_few.reason
    assert len(enough.points) == 16


def test_batches_without_a_finite_loss_are_left_out_and_too_many_of_them_end_the_search() -> None:
    some, many = Unbreakable(frozenset({102, 107})), Unbreakable(frozenset(range(100, 110)))

    found = run_range_test(some, 300, 100, CONFIG)
    nothing = run_range_test(many, 300, 100, CONFIG)

    assert some.trained[:5] == [100, 101, 103, 104, 105]
    assert 107 not in some.trained
    assert len(found.points) == 16
    assert nothing.suggestion is None
    assert "10 of 18 batches" in nothing.reason
    assert many.trained == []


# --- on a real model ---


@pytest.mark.parametrize("make", [adamw, sgd])
@pytest.mark.parametrize("trained_before", [0, 5])
def test_search_takes_everything_back_bit_for_bit(make: object, trained_before: int) -> None:
    model, forward = classifier(dropout=0.2)
    optimizer = make(model)  # type: ignore[operator]
    train_plainly(optimizer, forward, trained_before)
    auto = AutoLR(model, optimizer, 400)
    before = fingerprint(model, optimizer)
    rng, numbers = torch.get_rng_state(), random.getstate()

    found = auto.search(forward)

    assert len(found.points) > 3
    assert fingerprint(model, optimizer) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert random.getstate() == numbers
    assert all(p.grad is None for p in model.parameters())


def test_search_restores_running_statistics_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 400)
    before = fingerprint(model, optimizer)

    auto.search(lambda i: model(torch.randn(16, 4, generator=torch.Generator().manual_seed(i))).square().mean())

    assert fingerprint(model, optimizer) == before


def test_search_with_a_tensor_learning_rate_leaves_value_and_tensor_as_they_were() -> None:
    model, forward = classifier()
    lr = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)
    auto = AutoLR(model, optimizer, 400)

    assert auto.search(forward).suggestion is not None

    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(1e-3)


def test_a_repeated_search_gives_the_same_result() -> None:
    model, forward = classifier(dropout=0.2)
    auto = AutoLR(model, adamw(model), 400)

    assert auto.search(forward) == auto.search(forward)


@pytest.mark.parametrize("make", [adamw, sgd])
def test_the_suggestion_does_not_depend_on_the_rate_the_optimizer_has(make: object) -> None:
    def suggestion(lr: float) -> float | None:
        model, forward = classifier()
        return AutoLR(model, make(model, lr), 400).search(forward).suggestion  # type: ignore[operator]

    low, high = suggestion(1e-5), suggestion(1e-1)

    assert low is not None
    assert low == pytest.approx(high)


def test_search_steps_come_on_top_and_leave_the_batches_to_training() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 400)

    found = auto.search(forward)

    assert 0 < auto.search_steps == found.steps <= 0.08 * 400
    assert auto.step_count == auto.batch == 0


class Saved:
    """What a graph holds on to."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_a_search_that_accumulates_is_that_of_the_large_batch_with_one_graph_at_a_time() -> None:
    def points(how: str) -> list[tuple[float, float, float]]:
        model, forward = classifier()
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

        auto = AutoLR(model, adamw(model), 400)
        found = auto.search(at_once) if how == "at once" else auto.search(watched, micro_batches=2)
        assert found.suggestion is not None
        return [(p.lr, p.loss, p.reference) for p in found.points]

    one_by_one, at_once = points("one by one"), points("at once")

    assert one_by_one == [pytest.approx(point, rel=1e-4) for point in at_once]


def test_one_batch_without_a_finite_loss_does_not_spoil_the_search() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 400)

    found = auto.search(lambda batch: forward(batch) * (math.nan if batch == 3 else 1.0))

    assert found.suggestion is not None
    assert all(math.isfinite(p.reference) for p in found.points)


def test_a_search_in_which_training_itself_becomes_non_finite_still_suggests() -> None:
    model, forward = classifier()

    def fragile(batch: int) -> Tensor:
        too_large = any(float(p.detach().abs().max()) > 0.5 for p in model.parameters())
        return forward(batch) * (math.inf if too_large else 1.0)

    optimizer = adamw(model)
    auto = AutoLR(model, optimizer, 400)
    before = fingerprint(model, optimizer)

    found = auto.search(fragile)

    assert not math.isfinite(found.points[-1].loss)
    assert found.suggestion is not None
    assert found.suggestion < found.points[-1].lr
    assert fingerprint(model, optimizer) == before


@pytest.mark.parametrize("fails_at_call", [3, 40])
def test_an_error_of_the_closure_surfaces_after_everything_is_restored(fails_at_call: int) -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    train_plainly(optimizer, forward, 3)
    auto, calls = AutoLR(model, optimizer, 600), [0]
    before, rng = fingerprint(model, optimizer), torch.get_rng_state()

    def failing(batch: int) -> Tensor:
        calls[0] += 1
        if calls[0] == fails_at_call:
            raise OSError("the data are gone")
        return forward(batch)

    with pytest.raises(OSError, match="the data are gone"):
        auto.search(failing)

    assert fingerprint(model, optimizer) == before
    assert torch.equal(torch.get_rng_state(), rng)
    assert auto.step_count == 0
    assert auto.search(forward).suggestion is not None


def test_an_unusable_curve_keeps_the_rate_of_the_optimizer() -> None:
    model, forward = classifier()
    auto = AutoLR(model, sgd(model, 0.02), 300)
    unlearnable = nn.Parameter(torch.zeros(()))

    found = auto.search(lambda batch: torch.ones(()) + 0 * unlearnable)
    lrs = _train(auto, forward, 20)

    assert found.suggestion is None
    assert "no weight moved" in found.reason
    assert lrs == sorted(lrs)
    assert lrs[-1] == pytest.approx(0.02)  # warmed up to it, the rules not yet heard


def test_a_search_after_the_first_step_is_refused() -> None:
    model, forward = classifier()
    auto = AutoLR(model, adamw(model), 300)
    _train(auto, forward, 1)

    with pytest.raises(ValueError, match="before the first step"):
        auto.search(forward)


def _train(auto: AutoLR, forward: Forward, steps: int) -> list[float]:
    lrs = []
    for _ in range(steps):
        loss = forward(auto.batch)
        loss.backward()
        lrs.append(auto.step(loss))
    return lrs


def test_dropout_does_not_look_like_a_response_to_the_rate() -> None:
    model, forward = classifier(dropout=0.3)
    found = AutoLR(model, adamw(model), 1000).search(forward)
    assert found.suggestion is not None
    untouched = [point for point in found.points if point.lr < 1e-6]
    assert all(abs(point.change) < 1e-4 * point.reference for point in untouched)
    assert len(untouched) < 5
