"""A race draws the batches that training is going to draw, however the trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

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
