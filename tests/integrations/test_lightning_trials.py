"""A trial leads a batch to `training_step` as training does, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import DATA, Digits, Events, loader, make_trainer, named
from integrations.tiny_trainers import as_if_trained

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and loggers


def race(folder: Path, module: Digits, *others: pl.Callback, **data: Any) -> list[float]:
    """The rate that a race for `module` finds; the training goes on for two steps."""
    events: Events = []
    as_if_trained(module)  # type: ignore[arg-type]
    pl.seed_everything(0)
    stop = StopAfter(2)
    trainer = make_trainer(folder, AutoLRCallback(log_fn=events.append), *others, stop, max_steps=330)
    trainer.fit(module, **(data or {"train_dataloaders": loader()}))
    assert trainer.global_step == 2
    (told,) = named(events, "adaptive_lr_race")
    assert told["lr"] is not None
    return [told["lr"], told["search_steps"]]


class StopAfter(pl.Callback):
    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step >= self.steps


class Prepares(pl.LightningDataModule):
    """Batches that its hooks make of what the DataLoader gives, in place."""

    def __init__(self) -> None:
        super().__init__()
        self.moved = 0

    def train_dataloader(self) -> Any:
        return DataLoader([{"x": x, "y": y} for x, y in DATA], batch_size=32, shuffle=True, drop_last=True)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        batch["x"].mul_(2)
        return [batch.pop("x"), batch.pop("y")]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        self.moved += 1
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        return [batch[0] / 2, batch[1]]


def test_the_hooks_of_a_datamodule_prepare_the_batch(tmp_path: Path) -> None:
    data = Prepares()
    assert race(tmp_path, Digits(), datamodule=data) == race(tmp_path, Digits())
    assert data.moved > 15


class Weighs(pl.Callback):
    """Hands a weight of the batch's loss on, in the batch."""

    def __init__(self) -> None:
        self.batches, self.rows = 0, list[int]()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.batches += 1
        self.rows.append(len(batch[0]))
        pl_module.log("rows", float(len(batch[0])))
        batch.append(torch.ones(()))
        batch[0].add_(1)


class Weighed(Digits):
    def loss_of(self, batch: Any) -> Tensor:
        inputs, labels, weight = batch
        return nn.functional.cross_entropy(self(inputs - 1), labels) * weight


def test_another_callback_prepares_the_batch_and_counts_those_of_the_training(tmp_path: Path) -> None:
    weighs = Weighs()
    assert race(tmp_path, Weighed(), weighs)[0] == pytest.approx(race(tmp_path, Digits())[0])
    assert weighs.batches == 2
    assert weighs.rows == [32, 32]


class Starred(Digits):
    def training_step(self, *given: Any) -> Tensor:  # type: ignore[override]
        batch, number = given
        return self.loss_of(batch) + 0 * number


def test_training_step_may_take_whatever_it_is_given(tmp_path: Path) -> None:
    assert race(tmp_path, Starred()) == race(tmp_path, Digits())
