"""The final anneal, alone and as `AutoLR` drives it."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.anneal import FINISH_FRACTION, Anneal
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.plan import Given, make_plan
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig
from auto_lr.problems import classifier, sgd


@given(st.integers(1, 3000), st.floats(0, 1))
def test_full_rate_until_the_start_then_linear_to_the_last_step(total: int, fraction: float) -> None:
    anneal = Anneal.of_run(total, fraction)
    annealed = anneal.end - anneal.start
    factors = [anneal.factor(step) for step in range(1, total + 1)]

    assert annealed <= fraction * total < annealed + 1
    assert factors[: anneal.start] == [1.0] * anneal.start
    expected = [1 - i / (annealed + 1) for i in range(1, annealed + 1)]
    assert factors[anneal.start :] == pytest.approx(expected)
    if annealed:
        assert factors[-1] == pytest.approx(1 / (annealed + 1))


@given(st.integers(1, 3000))
def test_with_fraction_zero_nothing_is_ever_annealed(total: int) -> None:
    anneal = Anneal.of_run(total, 0.0)

    assert all(anneal.factor(step) == 1.0 and not anneal.begun(step) for step in range(1, total + 1))


@given(st.integers(1, 2000), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_finish_now_goes_on_from_the_factor_it_meets_and_ends_soon(
    total: int, fraction: float, when: float, again: float
) -> None:
    planned = Anneal.of_run(total, fraction)
    step = max(1, round(when * total))
    cut = planned.finish_now(step)

    assert cut.factor(step) == pytest.approx(planned.factor(step))
    assert step <= cut.end <= min(total, step + FINISH_FRACTION * total + 1)
    factors = [cut.factor(s) for s in range(step, cut.end + 1)]
    assert all(a > b > 0 for a, b in pairwise(factors))
    assert factors[-1] == pytest.approx(cut.scale / (cut.end + 1 - step))

    later = step + round(again * (cut.end - step))
    twice = cut.finish_now(later)
    assert twice.factor(later) == pytest.approx(cut.factor(later))
    assert twice.end <= cut.end


def test_a_saved_anneal_comes_back() -> None:
    anneal = Anneal.of_run(100, 0.3).finish_now(40)

    assert Anneal(**anneal.to_dict()) == anneal


def falling_scheduler(annealing: bool) -> tuple[AutoLRScheduler, list[str]]:
    """A scheduler that has seen a loss that falls fast, and its decisions."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1e-3)
    events: list[str] = []
    scheduler = AutoLRScheduler(
        optimizer, AdaptiveLRConfig.from_base_lr(1e-3, 400), log_fn=lambda e: events.append(e.get("decision", ""))
    )
    scheduler.annealing = annealing
    for step in range(200):
        scheduler.step(10 - 0.04 * step)
    return scheduler, events


def test_increases_are_locked_out_while_annealing() -> None:
    free, with_increases = falling_scheduler(annealing=False)
    locked, without = falling_scheduler(annealing=True)

    assert free.current_lr > 1e-3
    assert "increase" in with_increases
    assert locked.current_lr == 1e-3
    assert "increase" not in without


def test_plateaus_lower_nothing_while_annealing_but_the_brake_still_works() -> None:
    scheduler, _ = falling_scheduler(annealing=True)
    for _ in range(400):
        scheduler.step(2.0)
    assert scheduler.current_lr == 1e-3

    scheduler.step(float("nan"))

    assert scheduler.current_lr == pytest.approx(5e-4)


def test_auto_lr_anneals_the_last_part_of_the_run_and_only_that() -> None:
    model, forward = classifier()
    events: list[dict] = []
    config = AutoLRConfig(anneal_fraction=0.5, warmup_fraction=0.0)
    auto = AutoLR(model, sgd(model, 1e-4), 40, config, events.append)
    lrs = []
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        lrs.append(auto.step(loss))

    assert lrs[:20] == pytest.approx([1e-4] * 20)
    assert lrs[20:] == pytest.approx([1e-4 * (21 - i) / 21 for i in range(1, 21)])
    anneals = [e for e in events if e["event"] == "adaptive_lr_anneal"]
    assert [(e["step"], e["start"], e["end"], e["reason"]) for e in anneals] == [(20, 20, 40, "end_of_run")]


def test_finish_now_of_a_run_changes_its_rates_and_its_end() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(()))], lr=1.0)
    optimizer.param_groups[0]["initial_lr"] = 1.0
    events: list[dict] = []
    plan = make_plan(Given(AutoLRConfig("fixed", warmup_steps=0, anneal_fraction=0.3), 1000, 1.0))
    control = LearningRateControl(plan, optimizer, events.append)

    assert control.finish_now(200) == 300
    rates = []
    for step in range(201, 301):
        control.before_step(step)
        rates.append(optimizer.param_groups[0]["lr"])

    assert rates == pytest.approx([(301 - step) / 101 for step in range(201, 301)])
    assert [(e["step"], e["reason"]) for e in events] == [(200, "finish_now")]
