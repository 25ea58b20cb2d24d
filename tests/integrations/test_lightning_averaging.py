"""`StochasticWeightAveraging` beside the callback: an epoch that trains nothing ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import GradientAccumulationScheduler, StochasticWeightAveraging
from torch import nn

from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import Digits, loader, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class Normed(Digits):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))


class Rates(pl.Callback):
    """The rates of each epoch."""

    def __init__(self) -> None:
        self.seen: dict[int, list[float]] = {}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        self.seen.setdefault(trainer.current_epoch, []).append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("others", [[], [GradientAccumulationScheduler({0: 2, 1: 1})]])
def test_the_anneal_ends_before_the_epoch_that_renews_batch_norm(
    tmp_path: Path, others: list[pl.Callback], caplog: pytest.LogCaptureFixture
) -> None:
    callback, rates, module = AutoLRCallback(), Rates(), Normed()
    averaging = StochasticWeightAveraging(1e-2, swa_epoch_start=3)
    trainer = make_trainer(tmp_path, callback, averaging, rates, *others, max_steps=-1, max_epochs=3)
    trainer.fit(module, loader())
    batches = len(loader())
    planned = 3 * batches - (batches // 2 if others else 0)
    assert callback.auto is not None
    assert (callback.auto.steps, callback.auto.step_count) == (planned, planned)
    assert rates.seen[2][-1] < 0.05 * max(map(max, rates.seen.values()))
    assert len(rates.seen[2]) == batches
    assert module.net[1].num_batches_tracked == batches  # counted anew: the epoch behind them was there
    assert not [message for message in caplog.messages if "trains on" in message]


def test_a_run_that_ends_sooner_is_stopped_at_once(tmp_path: Path) -> None:
    callback = AutoLRCallback(steps=100)
    averaging = StochasticWeightAveraging(1e-2, swa_epoch_start=2)
    trainer = make_trainer(tmp_path, callback, averaging, max_steps=-1, max_epochs=2)
    trainer.fit(Normed(), loader())
    assert trainer.global_step == 100


def test_without_batch_norm_all_epochs_train(tmp_path: Path) -> None:
    callback = AutoLRCallback()
    averaging = StochasticWeightAveraging(1e-2, swa_epoch_start=2)
    make_trainer(tmp_path, callback, averaging, max_steps=-1, max_epochs=2).fit(Digits(), loader())
    assert callback.auto is not None
    assert callback.auto.finished
    assert callback.auto.step_count == 2 * len(loader())
