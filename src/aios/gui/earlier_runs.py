"""How long a step of a run will take, by the runs that the folder holds already. No Tk here."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aios.brains.brain_list import tail_records
from aios.errors import UserError
from aios.file_names import LOG_FILE
from aios.run_view.events import number
from aios.run_view.follow import LogFollower
from aios.settings.config import TrainingConfig
from aios.settings.estimate import RunSize, step_seconds
from aios.settings.fits import likely_device, size_of_run
from aios.settings.forecast import Forecast, forecast

_MOST_LOGS = 12
_BEGINNING = 64 * 1024  # bytes of a log that hold its first record
_NEWEST_STEPS = 50
_FURTHEST = 4.0
"""Work of an earlier step, over or under that of the new one, from which it says nothing about it."""
_SPEEDS = {"cpu": 5e10, "cuda": 5e13}
"""Floating-point operations per second that a device usually makes; only ratios come of it."""


def foresee(config: TrainingConfig) -> Forecast | None:
    """The `forecast` of a run, with its time where an earlier one tells it."""
    foreseen = forecast(config)
    return foreseen and dataclasses.replace(foreseen, step_seconds=usual_step_seconds(foreseen))


def usual_step_seconds(foreseen: Forecast) -> float | None:
    """Seconds of a step, from the earlier run in the same folder whose steps were most alike; None: there is none."""
    device = likely_device(foreseen.config)
    work = step_seconds(foreseen.size, _SPEEDS[device])
    known = [(work / step_seconds(size, _SPEEDS[device]), took) for size, took in _earlier(foreseen, device)]
    alike = [(ratio, took) for ratio, took in known if 1 / _FURTHEST <= ratio <= _FURTHEST]
    if not alike:
        return None
    ratio, took = min(alike, key=lambda one: max(one[0], 1 / one[0]))
    return ratio * took


def _earlier(foreseen: Forecast, device: str) -> Iterator[tuple[RunSize, float]]:
    """(size, seconds of a step) of the newest runs on a device of that kind and with the same tokenizer."""
    logs = [log for log in Path(foreseen.config.bundle_dir).glob(f"*/{LOG_FILE}") if log.is_file()]
    for log in sorted(logs, key=lambda log: log.stat().st_mtime, reverse=True)[:_MOST_LOGS]:
        begun = next(iter(LogFollower(log).poll(_BEGINNING)), {})
        config = _config_of(begun.get("config"))
        times = [number(r, "step_time_s") for r in tail_records(log) if r.get("event") == "train"][-_NEWEST_STEPS:]
        took = statistics.median(times) if times and all(map(math.isfinite, times)) else 0.0
        on_cpu = begun.get("device") == "cpu"
        if config is not None and took > 0 and on_cpu == (device == "cpu") and config.model == foreseen.config.model:
            yield size_of_run(config, foreseen.size.vocab_size, device), took


def _config_of(logged: Any) -> TrainingConfig | None:
    """The settings that a log begins with; None where they are none of this version's."""
    names = {f.name for f in dataclasses.fields(TrainingConfig)}
    if not isinstance(logged, dict):
        return None
    try:
        return TrainingConfig(**{name: value for name, value in logged.items() if name in names})
    except UserError:
        return None
