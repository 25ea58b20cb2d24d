"""Trainers with the callback attached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import Trainer

from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import (
    gpt2,
    make_trainer,
)

Events = list[dict[str, Any]]


def steered(folder: Path, model: Any = None, events: Events | None = None, **given: Any) -> Trainer:
    trainer = make_trainer(folder, model or gpt2(), **given)
    AutoLRCallback.attach(trainer, log_fn=None if events is None else events.append)
    return trainer


def named(events: Events, event: str) -> Events:
    return [record for record in events if record["event"] == event]
