"""Lightning's averages of the weights, which know nothing of weights that are taken back."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn


def begin_averages_anew(trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
    """Let `WeightAveraging` and what is derived from it average from the weights of now on.

    By its hooks for checkpoints: no copy of the module is made, which may hold by now what cannot be copied.
    """
    for callback in trainer.callbacks:
        if isinstance(callback, WeightAveraging):
            now = {"state_dict": nn.Module.state_dict(pl_module)}  # all of it, whatever the module itself saves
            saved: dict[str, Any] = dict(now)
            callback.on_save_checkpoint(trainer, pl_module, saved)
            counts = {name: torch.zeros_like(count) for name, count in saved["averaging_state"].items()}
            callback.on_load_checkpoint(trainer, pl_module, {**saved, **now, "averaging_state": counts})
