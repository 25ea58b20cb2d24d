"""A LightningModule, a loop of Accelerate's and a plain one, as their users write them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from accelerate import Accelerator
from lightning.pytorch.tuner import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import get_linear_schedule_with_warmup

from aios.auto_lr import AutoLR, BatchFeed
from aios.integrations.accelerate import AutoLRLoop
from aios.integrations.lightning import AutoLRCallback
from integration_bench.methods import CLIP_NORM, COSINE, DEFAULT, FINDER, OURS, cosine
from integration_bench.problem import ROWS, Data

ADAMW_LR = 1e-3
"""AdamW's own."""
EXAMPLE_LR = 5e-4
"""Of our example for Accelerate, whose own examples differ."""
EXAMPLE_WARMUP = 10


class Module(pl.LightningModule):
    """The model as a LightningModule; `lr` is where `Tuner.lr_find` looks for it."""

    def __init__(self, model: nn.Module, lr: float, schedule_steps: int | None) -> None:
        super().__init__()
        self.model, self.lr, self._schedule_steps = model, lr, schedule_steps

    def training_step(self, batch: dict[str, Tensor], _: int) -> Tensor:
        """Loss of a batch."""
        loss: Tensor = self.model(**batch).loss
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW, with a cosine where one is asked for."""
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=self.lr)
        if self._schedule_steps is None:
            return optimizer
        schedule = {"scheduler": cosine(optimizer, self._schedule_steps), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def by_lightning(method: str, lr: float, model: nn.Module, data: Data, steps: int) -> None:
    """Train by Lightning's `Trainer`."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    callbacks = [AutoLRCallback()] if method == OURS else []
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", gradient_clip_val=CLIP_NORM, callbacks=callbacks,
        enable_model_summary=False, **quiet,
    )  # fmt: skip
    scheduled = steps if method in (COSINE, FINDER) else None
    module = Module(model, lr if method == COSINE else ADAMW_LR, scheduled)
    if method == FINDER:
        finder = Tuner(trainer).lr_find(module, _loader(data))
        module.lr = (finder.suggestion() if finder is not None else None) or ADAMW_LR
    trainer.fit(module, _loader(data))


def by_accelerate(method: str, lr: float, model: nn.Module, data: Data, steps: int) -> None:
    """Train by a loop with an `Accelerator`."""
    accelerator = Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr if method == COSINE else EXAMPLE_LR)
    model, optimizer, loader = accelerator.prepare(model, optimizer, _loader(data))
    if method == OURS:
        auto = AutoLRLoop(accelerator, model, optimizer, steps, loader)
        update: Callable[[Tensor], None] = auto.step
    else:
        default = get_linear_schedule_with_warmup(optimizer, EXAMPLE_WARMUP, steps)
        scheduler = accelerator.prepare(default if method == DEFAULT else cosine(optimizer, steps))
        update = partial(_scheduled, accelerator, model, optimizer, scheduler)
    for _, batch in zip(range(steps), loader, strict=False):
        loss = model(**batch).loss
        accelerator.backward(loss)
        update(loss)
        optimizer.zero_grad()


def _scheduled(accelerator: Accelerator, model: nn.Module, optimizer: Any, scheduler: Any, loss: Tensor) -> None:
    accelerator.clip_grad_norm_(model.parameters(), CLIP_NORM)
    optimizer.step()
    scheduler.step()


def by_torch(method: str, lr: float, model: nn.Module, data: Data, steps: int) -> None:
    """Train by a loop that has nothing but torch."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr if method == COSINE else ADAMW_LR)
    if method == OURS:
        _steered(model, optimizer, data, steps)
        return
    scheduler = cosine(optimizer, steps) if method == COSINE else None
    model.train()
    for _, batch in zip(range(steps), _loader(data), strict=False):
        model(**batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        optimizer.zero_grad()


def _steered(model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, steps: int) -> None:
    feed = BatchFeed(_loader(data))
    auto = AutoLR(model, optimizer, steps=steps)
    model.train()
    auto.search(lambda i: model(**feed[i]).loss)
    for batch in feed.batches(auto):
        loss = model(**batch).loss
        loss.backward()
        auto.step(loss)


def _loader(data: Data) -> DataLoader[dict[str, Tensor]]:
    return DataLoader(data.train, batch_size=ROWS, shuffle=True)
