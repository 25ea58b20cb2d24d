"""Steps of a run, recorded or made up, and what the ladder says of them."""

import math
import random
from collections.abc import Iterable
from statistics import median

from aios.auto_lr.trouble import Rung, TroubleMonitor, Verdict
from aios.auto_lr.trouble_config import TroubleConfig

AT = 160
"""Index in the disturbed traces, and in the synthetic ones below, at which the disturbance begins."""


Step = tuple[float, float]


def feed(monitor: TroubleMonitor, steps: Iterable[Step]) -> list[Verdict]:
    """Verdicts of a trainer that skips what is above `skip_above` or not finite."""
    verdicts = []
    for number, (loss, norm) in enumerate(steps):
        skipped = norm > monitor.skip_above or not math.isfinite(loss + norm)
        verdicts.append(monitor.observe(number, loss, norm, skipped))
    return verdicts


def rungs(verdicts: Iterable[Verdict]) -> list[str]:
    return [verdict.rung.value for verdict in verdicts if verdict.rung is not Rung.NONE]


def normal_steps(count: int, seed: int = 0, level: float = 4.0, norm: float = 0.8) -> list[Step]:
    rng = random.Random(seed)
    return [(level + rng.gauss(0, 0.15), norm * math.exp(rng.gauss(0, 0.12))) for _ in range(count)]


def settled(config: TroubleConfig | None = None) -> TroubleMonitor:
    monitor = TroubleMonitor(config)
    assert rungs(feed(monitor, normal_steps(AT))) == []
    return monitor


def residuals(steps: list[Step], half: int = 15) -> list[Step]:
    """(loss - its level, log norm - its level), the levels being centred running medians."""
    losses, logs = [loss for loss, _ in steps], [math.log(max(norm, 1e-30)) for _, norm in steps]

    def detrended(values: list[float]) -> list[float]:
        windows = (values[max(0, i - half) : i + half + 1] for i in range(len(values)))
        return [value - median(window) for value, window in zip(values, windows, strict=True)]

    return list(zip(detrended(losses), detrended(logs), strict=True))
