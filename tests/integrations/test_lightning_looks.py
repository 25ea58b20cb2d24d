"""A race draws the batches that training is going to draw, however the trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import DATA, Digits, Events, make_trainer, named
from integrations.tiny_trainers import as_if_trained

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class OnlyTheFirst(Dataset[Any]):
    """Digits of which all but the first 40 are not there."""

    def __len__(self) -> int:
        return len(DATA)

    def __getitem__(self, number: int) -> Any:
        if number >= 40:
            raise FileNotFoundError(f"row {number} is not downloaded")
        return DATA[number]


@pytest.mark.parametrize("limit", [{"limit_train_batches": 5}, {"overfit_batches": 5}])
def test_a_race_heeds_the_limit_of_an_epoch(tmp_path: Path, limit: dict[str, int]) -> None:
    events: Events = []
    module = Digits()
    as_if_trained(module)  # type: ignore[arg-type]
    trainer = make_trainer(tmp_path, AutoLRCallback(log_fn=events.append), max_steps=330, **limit)
    trainer.fit(module, DataLoader(OnlyTheFirst(), batch_size=8))
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None


class Several(Digits):
    """Keeps what it is given, outside what a trial puts back."""

    seen: tuple[set[Any], set[Any]]
    """Pairs of batches in the race, and in the training."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        training = self.trainer.fit_loop.epoch_loop.batch_progress.total.started > 0
        self.seen[training].add(tuple(part if part is None else float(part[0].sum()) for part in batch.values()))
        return torch.stack([self.loss_of(part) for part in batch.values() if part is not None]).mean()


@pytest.mark.parametrize(("mode", "pairs"), [("max_size", 10), ("min_size", 2), ("max_size_cycle", 10)])
def test_a_race_combines_several_loaders_in_their_mode(tmp_path: Path, mode: Any, pairs: int) -> None:
    module = Several()
    module.seen = set(), set()
    as_if_trained(module)  # type: ignore[arg-type]
    short, long = (DataLoader(Subset(DATA, range(rows)), batch_size=8) for rows in (16, 80))
    events: Events = []
    trainer = make_trainer(tmp_path, AutoLRCallback(log_fn=events.append), max_steps=330)
    trainer.fit(module, CombinedLoader({"a": short, "b": long}, mode))
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None
    raced, trained = module.seen
    assert raced <= trained
    assert len(raced) > 1
    assert len(trained) == pairs


class Order(pl.Callback):
    """The numbers of the rows that the training has drawn, epoch by epoch."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, list[int]]] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.drawn.append((trainer.current_epoch, batch[2].tolist()))


def test_a_race_leaves_persistent_workers_to_the_training(tmp_path: Path) -> None:
    """Their DataLoader has but one iterator, which a second iteration begins anew."""
    data = TensorDataset(*DATA.tensors, torch.arange(len(DATA)))
    events: Events = []

    def drawn(*callbacks: pl.Callback) -> list[tuple[int, list[int]]]:
        module, order = Digits(), Order()
        as_if_trained(module)  # type: ignore[arg-type]
        pl.seed_everything(0)
        batches = DataLoader(data, 16, shuffle=True, drop_last=True, num_workers=1, persistent_workers=True)
        make_trainer(tmp_path, None, *callbacks, order, max_steps=-1, max_epochs=3).fit(module, batches)
        return order.drawn

    steered = drawn(AutoLRCallback(log_fn=events.append))
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None
    assert len(steered) == 3 * (len(DATA) // 16)
    assert steered == drawn()
