"""RMSprop's first updates are far larger than those to come; a search looks at what they will be."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.settling import settled_part
from auto_lr.problems import Forward, adamw, classifier, trained_classifier
from auto_lr.searches import Wrapped, climb_of, rmsprop

GRADIENT = torch.tensor([3.0, -0.5])


def updated(make: Any, updates: int = 1) -> tuple[Any, float]:
    """An optimizer after some updates by the same gradient, and the size of the newest, over its rate of 0.01."""
    weight = nn.Parameter(torch.zeros(2))
    optimizer = make([weight])
    for _ in range(updates):
        before = weight.detach().clone()
        weight.grad = GRADIENT.clone()
        optimizer.step()
    return optimizer, float((weight.detach() - before).abs().mean()) / 0.01


@pytest.mark.parametrize("updates", [1, 4, 50, 2000])
@pytest.mark.parametrize("decay", [0.9, 0.99, 0.999])
def test_of_an_update_of_rmsprop_that_part_stays_which_later_ones_have(decay: float, updates: int) -> None:
    optimizer, size = updated(lambda weights: torch.optim.RMSprop(weights, alpha=decay), updates)
    assert size * settled_part([optimizer]) == pytest.approx(1.0, rel=1e-4)


@pytest.mark.parametrize("kind", ["Adam", "SGD", "Adagrad", "ASGD", "Adadelta", "NAdam", "Adamax"])
def test_updates_of_others_are_taken_as_they_are(kind: str) -> None:
    optimizer, _ = updated(getattr(torch.optim, kind))
    assert settled_part([optimizer]) == 1
    assert settled_part([updated(torch.optim.RMSprop)[0], optimizer]) == 1


def test_a_weight_that_never_had_a_gradient_changes_nothing() -> None:
    optimizer, _ = updated(lambda weights: torch.optim.RMSprop([*weights, nn.Parameter(torch.ones(3))]))
    assert settled_part([optimizer]) == pytest.approx(0.1)


def test_before_any_update_nothing_is_known() -> None:
    assert settled_part([torch.optim.RMSprop([nn.Parameter(torch.zeros(2))])]) == 1


def test_one_inside_another_is_found() -> None:
    model = nn.Linear(2, 2)
    outer = Wrapped(model)
    outer.inner = rmsprop(model)
    model(torch.ones(1, 2)).sum().backward()
    outer.inner.step()
    assert settled_part([outer]) == pytest.approx(0.1)


def first_peak(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Forward) -> float:
    """Of the climb of a run of 400 steps."""
    events: list[dict[str, Any]] = []
    climb = climb_of(AutoLR(model, optimizer, 400, log_fn=events.append), forward, events)
    return float(climb["curve"][0][0])


def test_a_climb_begins_where_that_of_adam_does() -> None:
    models = [classifier(), classifier()]
    peaks = [first_peak(m, make(m), f) for (m, f), make in zip(models, (rmsprop, adamw), strict=True)]
    assert 0.5 < peaks[0] / peaks[1] < 2


def test_a_race_is_run_around_the_rates_that_it_is_run_around_under_adam() -> None:
    middles = []
    for make in (rmsprop, adamw):
        model, forward = trained_classifier()
        found = AutoLR(model, make(model), 600).search(forward)
        assert found is not None
        middles.append(sorted(found.rates)[len(found.rates) // 2])
    assert 0.3 < middles[0] / middles[1] < 3
