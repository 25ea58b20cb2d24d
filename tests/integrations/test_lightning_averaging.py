"""Averages of the weights beside the callback. `StochasticWeightAveraging` has an epoch that trains nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EMAWeightAveraging, GradientAccumulationScheduler, StochasticWeightAveraging
from torch import Tensor, nn

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


class Keeping(Digits):
    """Holds on to a tensor that cannot be copied, and saves but a part of itself."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.newest = super().training_step(batch, batch_idx)
        return self.newest

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        saved = super().state_dict(*args, **kwargs)
        return {name: tensor for name, tensor in saved.items() if not name.endswith("net.0.bias")}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False)


class Distances(pl.Callback):
    """How far the average is from the weights after each step, relative to them."""

    def __init__(self, average: EMAWeightAveraging, ours: AutoLRCallback) -> None:
        self.average, self.ours, self.climbing = average, ours, dict[int, bool]()
        self.seen = dict[int, float]()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        saved: dict[str, Any] = {"state_dict": {}}
        self.average.on_save_checkpoint(trainer, pl_module, saved)
        weight, step = pl_module.net[0].weight, trainer.global_step
        self.seen[step] = float((saved["state_dict"]["net.0.weight"] - weight).norm() / weight.norm())
        self.climbing[step] = self.ours.auto is not None and self.ours.auto.climbing


@pytest.mark.parametrize("first", [True, False])
def test_an_average_forgets_what_the_climb_has_taken_back(tmp_path: Path, first: bool) -> None:
    ours, average = AutoLRCallback(), EMAWeightAveraging(decay=0.99)
    distances = Distances(average, ours)
    others = [ours, average] if first else [average, ours]
    make_trainer(tmp_path, None, *others, distances, max_steps=200).fit(Keeping(), loader(), loader(64))
    last = max(step for step, climbs in distances.climbing.items() if climbs)
    assert 20 < last < 190
    assert distances.seen[last] > 0.05
    assert distances.seen[last + 1] == 0
    assert distances.seen[last + 20] > 0
