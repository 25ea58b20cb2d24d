"""A part of a model with a rate of its own, in each framework: so low a one that it must not move."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader

from aios.auto_lr import AutoLRConfig
from aios.integrations.accelerate import AutoLRLoop
from aios.integrations.lightning import AutoLRCallback as LightningCallback
from aios.integrations.transformers import AutoLRCallback
from integrations import tiny_modules
from integrations.tiny_modules import Digits
from integrations.tiny_trainers import Windows, gpt2, make_trainer, same, weights

STILL = AutoLRConfig(role_factors={"recurrent": 1e-9})


def marked(part: nn.Module) -> dict[str, torch.Tensor]:
    """Give the part its role; returns a copy of its weights."""
    part.lr_role = "recurrent"
    return {name: weight.detach().clone() for name, weight in part.named_parameters()}


def check_still(part: nn.Module, before: dict[str, torch.Tensor], model: nn.Module, fresh: nn.Module) -> None:
    """The part has hardly moved, all the rest has."""
    own = {id(weight) for weight in part.parameters()}
    for name, weight in part.named_parameters():
        torch.testing.assert_close(weight, before[name], rtol=1e-4, atol=1e-6)
    rest = [name for name, weight in model.named_parameters() if id(weight) not in own]
    was = dict(fresh.named_parameters())
    moved = [name for name in rest if not torch.allclose(dict(model.named_parameters())[name], was[name], rtol=1e-3)]
    assert len(moved) > 0.5 * len(rest)


def told(events: list[dict[str, Any]]) -> list[tuple[str, float]]:
    return [(e["role"], e["factor"]) for e in events if e["event"] == "adaptive_lr_roles"]


def test_transformers(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    def run(checkpoint: str | None) -> dict[str, torch.Tensor]:
        model = gpt2()
        part = model.transformer.h[0]
        before = marked(part)
        trainer = make_trainer(tmp_path, model, max_steps=80, save_strategy="steps", save_steps=40)
        AutoLRCallback.attach(trainer, STILL, events.append)
        trainer.train(resume_from_checkpoint=checkpoint)
        check_still(part, before, model, gpt2())
        return weights(model)

    unbroken = run(None)
    assert told(events) == [("recurrent", 1e-9)]
    assert same(run(str(tmp_path / "checkpoint-40")), unbroken)


def test_lightning(tmp_path: Path) -> None:
    def run(checkpoint: Path | None) -> dict[str, torch.Tensor]:
        module, events = Digits(dropout=0), list[dict[str, Any]]()
        before = marked(module.net[0])
        keeps = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        callback = LightningCallback(STILL, log_fn=events.append)
        given = {"max_steps": -1, "max_epochs": 4, "enable_checkpointing": True}
        trainer = tiny_modules.make_trainer(tmp_path, callback, keeps, **given)
        trainer.fit(module, tiny_modules.loader(64, shuffle=False), ckpt_path=checkpoint)
        assert told(events) == ([("recurrent", 1e-9)] if checkpoint is None else [])
        check_still(module.net[0], before, module, Digits())
        return weights(module)

    unbroken = run(None)
    assert same(run(tmp_path / "epoch=1.ckpt"), unbroken)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_accelerate(accumulate: int) -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    events: list[dict[str, Any]] = []
    model = gpt2().train()
    part = model.transformer.h[0]
    before = marked(part)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    prepared, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(Windows(512), batch_size=4))
    auto = AutoLRLoop(accelerator, prepared, optimizer, 90, loader, config=STILL, log_fn=events.append)
    while not auto.finished:
        for batch in loader:
            with accelerator.accumulate(prepared):
                loss = prepared(**batch).loss
                accelerator.backward(loss)
                auto.step(loss)
                optimizer.zero_grad()
            if auto.finished:
                break
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    assert told(events) == [("recurrent", 1e-9)]
    check_still(part, before, model, gpt2())
