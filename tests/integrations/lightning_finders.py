"""A rate finder under Lightning, ours or its own, and a module on which a search may leave marks."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor, nn

from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import Digits, Events, loader, make_trainer, named
from integrations.tiny_trainers import as_if_trained

THEIRS, OURS = "lr_find", "AutoLRCallback"
BOTH = pytest.mark.parametrize("finder", [pytest.param(THEIRS, marks=pytest.mark.slow), OURS])
"""What theirs does changes with Lightning's version alone, which is pinned: that is looked at among the slow tests."""
RACES = 330
"""Steps of a run that has enough of them for a race."""


def callback(finder: str, events: Events | None = None, **given: Any) -> pl.Callback:
    if finder == OURS:
        return AutoLRCallback(log_fn=None if events is None else events.append)
    return LearningRateFinder(**{"num_training_steps": 20, "early_stop_threshold": None, "update_attr": False, **given})


class Kept(Logger):
    """Keeps what it is handed."""

    name, version = "kept", 0

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, float]] = []

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """Nothing is kept of them."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.records.append(dict(metrics))


class Calls:
    """Counts them outside the module, whose own attributes are put back."""

    def __init__(self) -> None:
        self.of = Counter[str]()


class Trained(Digits):
    """As if trained before, so that ours races; with all that a search may leave a mark on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 10))
        self.register_buffer("mean", torch.zeros(()), persistent=False)
        torch.manual_seed(1)
        as_if_trained(self)  # type: ignore[arg-type]
        self.calls, self.outputs = Calls(), list[Tensor]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.calls.of["training_step"] += 1
        noise = 1e-3 * (random.random() + float(np.random.rand()))
        self.mean.lerp_(batch[0].mean(), 0.5)
        if self.logger is not None:
            self.logger.log_metrics({"noise": noise})
        self.outputs.append(super().training_step([batch[0] + noise, batch[1]], batch_idx))
        return self.outputs[-1]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.calls.of["validation_step"] += 1
        super().validation_step(batch, batch_idx)

    def on_train_epoch_end(self) -> None:
        self.calls.of["on_train_epoch_end"] += 1


class Leaves(pl.Callback):
    """Ends the fit where the training proper would begin."""

    def on_train_batch_start(self, *_: Any) -> None:
        raise RuntimeError("enough")


def curve(folder: Path, finder: str, module: pl.LightningModule, data: Any = None, **given: Any) -> list[float]:
    """The losses of a search, on the batches in order."""
    events: Events = []
    search = callback(finder, events)
    trainer = make_trainer(folder, search, Leaves(), max_steps=RACES, **given)
    data = {"train_dataloaders": loader(shuffle=False)} if data is None else data
    with pytest.raises(RuntimeError, match="enough"):
        trainer.fit(module, **data)
    if isinstance(search, LearningRateFinder):
        assert search.optimal_lr is not None
        return list(search.optimal_lr.results["loss"])
    (race,) = named(events, "adaptive_lr_race")
    return [*(math.nan if number is None else number for point in race["curve"] for number in point), race["lr"]]
