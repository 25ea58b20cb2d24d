"""Small LightningModules on the digits of scikit-learn, and the Trainer that trains them; fast, and dropout is on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import SumMetric

Events = list[dict[str, Any]]
DIGITS = load_digits()
DATA = TensorDataset(torch.tensor(DIGITS.data, dtype=torch.float32) / 16, torch.tensor(DIGITS.target))


class Digits(pl.LightningModule):
    """A classifier with dropout, which logs its loss."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(dropout), nn.Linear(32, 10))
        self.trained = SumMetric()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def loss_of(self, batch: Any) -> Tensor:
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = self.loss_of(batch)
        self.trained.update(1)
        self.log("train_loss", loss, on_step=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss_of(batch))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Manual(Digits):
    """Muon on the matrices, AdamW on the rest, both stepped by the module, which clips itself."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        muon, adamw = self.optimizers()
        muon.zero_grad()
        adamw.zero_grad()
        self.manual_backward(self.loss_of(batch))
        self.clip_gradients(muon, 1e-3, "norm")
        muon.step()
        adamw.step()

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.ndim == 2]
        vectors = [p for p in self.parameters() if p.ndim != 2]
        return [torch.optim.Muon(matrices, lr=1e-3), torch.optim.AdamW(vectors, lr=1e-3)]


def loader(batch_size: int = 32, shuffle: bool = True) -> DataLoader[Any]:
    return DataLoader(DATA, batch_size=batch_size, shuffle=shuffle, drop_last=True)


def make_trainer(folder: Path, callback: Any, *others: Any, **given: Any) -> pl.Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    defaults = {"max_steps": 80, "logger": False, "enable_checkpointing": False}
    callbacks = [*([callback] if callback else []), *others]
    return pl.Trainer(default_root_dir=folder, callbacks=callbacks, **{**quiet, **defaults, **given})


def named(events: Events, event: str) -> Events:
    return [record for record in events if record["event"] == event]
