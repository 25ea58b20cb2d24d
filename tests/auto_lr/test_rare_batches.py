"""Batches unlike the others: of a rare class, with nothing to predict, without finite numbers; and noise all over."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from aios.auto_lr.climb import Climb
from aios.auto_lr.grouped_scheduler import Rates
from aios.auto_lr.restoration import TRUST, Restoration
from aios.auto_lr.trouble import LET_IN, Rung, TroubleMonitor
from auto_lr.ladders import Step, feed, normal_steps
from auto_lr.landscapes import CONFIG, Weights, valley
from auto_lr.problems import train

CALM, LOW = Rates(1e-3, {}), Rates(5e-4, {})


def rungs_of(monitor: TroubleMonitor, steps: list[Step]) -> list[Rung]:
    """The rung of each step."""
    return [verdict.rung for verdict in feed(monitor, steps)]


def with_rare_batches(count: int, every: int) -> list[Step]:
    """A calm run in which each batch number `every` has a gradient and a loss of another order."""
    calm = normal_steps(count)
    return [(loss * 8, norm * 100) if i % every == every - 1 else (loss, norm) for i, (loss, norm) in enumerate(calm)]


@pytest.mark.parametrize("every", [40, 100])
def test_a_gradient_that_stands_alone_is_let_in_when_it_has_come_often_enough(every: int) -> None:
    rungs = rungs_of(TroubleMonitor(), with_rare_batches(20 * every, every))
    assert rungs.count(Rung.SKIP) == LET_IN
    assert set(rungs) == {Rung.NONE, Rung.SKIP}


def test_frequent_rare_batches_cost_one_cut_and_are_learned_from_then_on() -> None:
    rungs = rungs_of(TroubleMonitor(), with_rare_batches(1000, 7))
    assert rungs.count(Rung.CUT) == 1
    assert set(rungs[200:]) == {Rung.NONE}


def test_several_rare_batches_in_a_row_are_no_jump_of_the_loss() -> None:
    monitor = TroubleMonitor()
    calm = [(loss / 400, norm) for loss, norm in normal_steps(2000)]
    rare = [(3.0, norm * 100) if i % 40 == 39 else (loss, norm) for i, (loss, norm) in enumerate(calm)]
    rungs_of(monitor, rare)
    cluster = [(0.05, calm[0][1] * 20)] * 6  # five times the usual loss, a sixtieth of what a rare batch has
    assert set(rungs_of(monitor, cluster + calm[:60])) == {Rung.NONE}


def test_a_gradient_of_yet_another_order_is_an_explosion_all_the_same() -> None:
    monitor = TroubleMonitor()
    rungs_of(monitor, with_rare_batches(1000, 40))
    loss, norm = normal_steps(1)[0]
    assert rungs_of(monitor, [(loss, norm * 100)]) == [Rung.NONE]
    assert rungs_of(monitor, [(loss, norm * 100_000)]) == [Rung.SKIP]


def test_what_bad_batches_take_comes_back_with_the_next_good_one_however_often() -> None:
    restoration = Restoration()
    for step in range(1, 5 * TRUST, 7):
        assert restoration.after_bad_batch(CALM, calm=True) is None
        restoration.observe(step, False, True, CALM)
        restoration.note_bad_batch()
        assert restoration.after_bad_batch(LOW, calm=False) is None  # the loss is not as usual yet
        assert restoration.after_bad_batch(LOW, calm=True) == CALM


def test_what_was_taken_before_a_rewind_does_not_come_back_with_a_good_batch() -> None:
    restoration = Restoration()
    restoration.after_bad_batch(CALM, calm=True)
    restoration.note_bad_batch()
    restoration.forfeit(3)
    assert restoration.after_bad_batch(LOW, calm=True) is None


@pytest.mark.parametrize("seed", range(8))
def test_batches_with_nothing_to_predict_change_no_climb(seed: int) -> None:
    """Their loss is exactly 0: by chance two of them end one cycle."""
    draw = random.Random(seed)
    empty = {step for step in range(1000) if draw.random() < 0.06}

    def found_without(silent: set[int], zero: float | None) -> float | None:
        climb, taken = Climb.for_run(1000, CONFIG), 0
        weights = Weights(climb, 1.0)
        while climb.ended is None:
            lr = climb.next_lr()
            climb.observe(lr, zero if climb.unit is not None and taken in silent else valley()(weights.after(lr)), lr)
            taken += 1
        return climb.found(0).lr

    assert found_without(empty, 0.0) == found_without(empty, None)


# --- real runs ---


def test_a_rare_class_is_learned() -> None:
    """One row in 85, weighted by 100: left out as explosions, the loss ended above that of a constant answer (1.5)."""

    def rows(seed: int, count: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))
        return x, (x[:, 0] + x[:, 1] > 3.3).float()

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 1))
    weight = torch.tensor(100.0)

    def loss_on(seed: int, count: int) -> Tensor:
        x, y = rows(seed, count)
        return nn.functional.binary_cross_entropy_with_logits(model(x)[:, 0], y, pos_weight=weight)

    def loss_of(batch: int) -> Tensor:
        return loss_on(batch, 16)

    assert trained(model, loss_of, 800, lambda: float(loss_on(10**6, 5000))) < 1.0


@pytest.mark.parametrize("seed", [0, 3])
def test_what_noise_hides_in_the_climb_is_learned_all_the_same(seed: int) -> None:
    """Batches of any size: short races chose rates at which it ended at 2.6 to 3.5 (4.0 untrained)."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))

    def loss_on(generator: torch.Generator, count: int) -> Tensor:
        x = torch.randn(count, 8, generator=generator)
        return nn.functional.mse_loss(model(x), (2 * x).sin().sum(1, keepdim=True))

    def loss_of(batch: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + batch)
        return loss_on(generator, int(2 ** torch.randint(0, 9, (1,), generator=generator)))

    assert trained(model, loss_of, 600, lambda: float(loss_on(torch.Generator().manual_seed(5), 2000))) < 1.8


def test_a_loss_that_is_always_0_leaves_a_state_to_go_on_with() -> None:
    model = nn.Linear(4, 1)

    def nothing(_: int) -> Tensor:
        return 0 * model(torch.ones(4)).sum()

    def begin() -> AutoLR:
        return AutoLR(model, torch.optim.AdamW(model.parameters()), 100)

    auto = begin()
    auto.search(nothing)
    for _ in range(90):
        loss = nothing(auto.batch)
        loss.backward()
        auto.step(loss)
    resumed = begin()
    resumed.load_state_dict(json.loads(json.dumps(auto.state_dict(), allow_nan=False)))
    assert (resumed.step_count, resumed.state_dict()["control"]) == (90, auto.state_dict()["control"])


def trained(model: nn.Module, loss_of: Callable[[int], Tensor], steps: int, test: Callable[[], float]) -> float:
    """What `test` gives after a run of `steps` that searches its rate."""
    auto = AutoLR(model, torch.optim.AdamW(model.parameters()), steps)
    auto.search(loss_of)
    train(auto, loss_of)
    with torch.no_grad():
        return test()
