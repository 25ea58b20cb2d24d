"""Loops that draw their data from the process's random numbers: what a rewind or a climb repeats of them."""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.random_state import host_state, seed_host, set_host_state
from auto_lr.problems import fingerprint, sgd

BAD = range(300, 325)
"""Steps whose loss is NaN: in the course of them training goes back."""


class Drawing:
    """A run of 400 steps on data drawn from the generators of torch, Python and NumPy."""

    def __init__(self) -> None:
        seed_host(0)
        self.model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 1))
        self.optimizer = sgd(self.model)
        self.events: list[dict[str, Any]] = []
        self.auto = AutoLR(self.model, self.optimizer, 400, log_fn=self.events.append)
        self.draws: list[tuple[float, float, float]] = []

    def train(self, until: int = 400) -> None:
        self.auto.pause_at(until)
        while not self.auto.finished:
            x = torch.randn(32, 16)
            self.draws.append((float(x[0, 0]), random.random(), float(np.random.rand())))
            loss = F.mse_loss(self.model(x), x.sin().sum(1, keepdim=True))
            loss.backward()
            self.auto.step(loss * math.nan if self.auto.step_count in BAD else loss)

    def rewinds(self) -> list[int]:
        return [event["step"] for event in self.events if event.get("rung") == "rewind"]


def test_after_a_rewind_no_random_number_is_drawn_a_second_time() -> None:
    run = Drawing()
    run.train()
    assert run.rewinds()
    for generator in range(3):
        assert len({draw[generator] for draw in run.draws}) == 400


@pytest.mark.parametrize("at", [299, 330])
def test_a_run_resumed_before_or_after_a_rewind_draws_what_an_unbroken_one_does(at: int) -> None:
    straight, resumed = Drawing(), Drawing()
    straight.train(at)
    straight.auto.keep_snapshot()
    saved = copy.deepcopy([part.state_dict() for part in (straight.model, straight.optimizer, straight.auto)])
    generators = host_state()
    straight.train()
    for part, state in zip((resumed.model, resumed.optimizer), saved, strict=False):
        part.load_state_dict(state)
    set_host_state(generators)
    resumed.auto.load_state_dict(saved[2])
    resumed.train()
    assert straight.rewinds()
    assert resumed.draws == straight.draws[at:]
    assert fingerprint(resumed.model, resumed.optimizer) == fingerprint(straight.model, straight.optimizer)


def test_the_end_of_a_climb_brings_the_random_numbers_of_its_steps_back() -> None:
    run = Drawing()
    run.auto.search()
    run.train(200)
    (climb,) = (event for event in run.events if event["event"] == "adaptive_lr_climb")
    end, lost = climb["step"], climb["search_steps"]
    assert lost > 0
    assert run.draws[end : end + lost] == run.draws[end - lost : end]
