"""Losses as a function of the rate, and climbs on them."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from hypothesis import strategies as st

from aios.auto_lr.climb import Climb
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.search import Found

CONFIG = ClimbConfig()


Landscape = Callable[[float], float]
"""The loss by the largest change of an update in the last cycle's worth of steps: weights remember what high rates did
to them when the rate has fallen again."""


def valley(edge: float = 0.1, depth: float = 3.0, start: float = 5.0) -> Landscape:
    """Flat, then falling over about two decades, lowest just below `edge`, and rising steeply above it."""

    def loss(change: float) -> float:
        fall = depth / (1 + (edge / 10 / change) ** 1.5) if change > 0 else 0.0
        return start - fall + max(0.0, 10 * (change / edge - 1))

    return loss


class Weights:
    """What is left of the updates of `climb`, one of which changes `strength` x lr."""

    def __init__(self, climb: Climb, strength: float) -> None:
        self._strength = strength
        self._rates: deque[float] = deque(maxlen=climb.steps_per_cycle)

    def after(self, lr: float) -> float:
        """The change that counts once an update at `lr` is among them."""
        self._rates.append(lr)
        return self._strength * max(self._rates)


@dataclass
class Trace:
    """What a climb did."""

    climb: Climb
    rates: list[float] = field(default_factory=list)
    """Of the steps after it was known where to begin."""
    kept: list[int] = field(default_factory=list)
    """Numbers of the cycles at whose end the state was worth keeping."""
    steps: int = 0

    @property
    def found(self) -> Found:
        return self.climb.found(0)


def climbed(
    landscape: Landscape,
    strength: float = 1.0,
    *,
    steps: int = 1000,
    noise: float | Landscape = 0.0,
    jitter: float = 0.0,
    seed: int = 0,
    spoil: Iterable[int] = (),
    odd: tuple[int, float] = (0, 1.0),
    config: ClimbConfig = CONFIG,
) -> Trace:
    """Climb to the end; an update at `lr` changes `strength` x lr, give or take, batches in `spoil` give NaN, and the
    loss of the one that `odd` names is so many times what it should be."""
    numbers, spoiled = random.Random(seed), set(spoil)
    noise_at = noise if callable(noise) else lambda change: noise
    trace = Trace(Climb.for_run(steps, config))
    weights = Weights(trace.climb, strength)
    while trace.climb.ended is None:
        begun, lr = trace.climb.unit is not None, trace.climb.next_lr()
        change, reached = strength * lr * math.exp(numbers.gauss(0, jitter)), weights.after(lr)
        loss = landscape(reached) + numbers.gauss(0, noise_at(reached))
        trace.steps += 1
        if begun:
            trace.rates.append(lr)
            loss = math.nan if len(trace.rates) in spoiled else loss
            loss *= odd[1] if len(trace.rates) == odd[0] else 1.0
        if trace.climb.observe(lr, loss, change):
            number, place = divmod(len(trace.rates), trace.climb.steps_per_cycle)
            assert place == 0
            trace.kept.append(number - 1)
    return trace


strengths = st.floats(-3, 3).map(lambda exponent: 10**exponent)


changes = st.one_of(st.floats(0, 1e6), st.sampled_from([math.nan, math.inf, 0.0]))
