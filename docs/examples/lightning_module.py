"""A LightningModule on scikit-learn's digits: the rate that `configure_optimizers` gives, then AutoLR."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from aios.integrations.lightning import AutoLRCallback  # line 1

digits = load_digits()
DATA = TensorDataset(torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target))


class Classifier(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def train(callbacks):
    pl.seed_everything(0)
    train_data, test_data = random_split(DATA, [1500, len(DATA) - 1500])
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=6, gradient_clip_val=1.0, callbacks=callbacks, **quiet)
    trainer.fit(Classifier(), DataLoader(train_data, batch_size=32, shuffle=True), DataLoader(test_data, batch_size=99))
    return float(trainer.callback_metrics["val_loss"])


print(f"default {train([]):.3f}, AutoLR {train([AutoLRCallback()]):.3f}")  # line 2: callbacks=[AutoLRCallback()]
