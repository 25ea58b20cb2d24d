"""Which parts of the adaptive learning rate an engine leaves no room for, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from aios.auto_lr.events import Event, disabled
from aios.auto_lr.loop.engine import Engine
from aios.auto_lr.plan import AutoLRConfig


def effective_config(config: AutoLRConfig, engine: Engine) -> AutoLRConfig:
    """The settings, with the profile that the engine leaves room for."""
    return replace(config, profile="engine") if engine.schedules_lr else config


def look_obstacle(engine: Engine) -> str | None:
    """Why no rate can be found, in words for the log; None where one can."""
    return "the engine schedules the LR" if engine.schedules_lr else engine.snapshot_obstacle


def search_obstacle(config: AutoLRConfig, engine: Engine) -> str | None:
    """Why a run cannot begin with a search; None where it can."""
    obstacle = look_obstacle(engine)
    if obstacle is None and config.profile != "auto":
        return f"profile {config.profile} goes by the optimizer's LR; leave `search` out, or take profile auto"
    return obstacle


def disabled_parts(config: AutoLRConfig, engine: Engine, step: int) -> Iterator[Event]:
    """An event, at optimizer step `step`, for each part that `config` asks for in vain."""
    if config.profile == "fixed":
        return
    if engine.schedules_lr:
        yield disabled(step, "deepspeed_scheduler_present")
    elif engine.snapshot_obstacle is not None and config.profile == "auto":
        for part in ("search", "rewind"):
            yield disabled(step, f"no_exact_snapshot ({engine.snapshot_obstacle})", part)
