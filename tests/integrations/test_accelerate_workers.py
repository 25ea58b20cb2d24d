"""`AutoLRLoop` of models whose gradients DDP averages over the workers: here a group of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

from aios.integrations.accelerate import AutoLRLoop
from integrations.tiny_trainers import as_if_trained


@pytest.fixture(autouse=True)
def _group_of_one(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def shared() -> DistributedDataParallel:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    return DistributedDataParallel(as_if_trained(model))  # type: ignore[arg-type]


def test_a_race_averages_the_gradients_of_each_of_several_models() -> None:
    torch.manual_seed(0)
    one, other = shared(), shared()
    averaged: list[bool] = []

    def loss_of(batch: list[Tensor]) -> Tensor:
        averaged.extend(model.require_backward_grad_sync for model in (one, other))
        return (one(batch[0]) + other(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()

    both, accelerator = nn.ModuleList([one, other]), Accelerator(cpu=True, gradient_accumulation_steps=2)
    data = DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=8)
    optimizer, loader = accelerator.prepare(torch.optim.AdamW(both.parameters(), lr=1e-3), data)
    told: list[dict[str, Any]] = []
    auto = AutoLRLoop(accelerator, both, optimizer, 330, loader, loss_of, log_fn=told.append)
    with one.no_sync(), other.no_sync():  # as in the middle of an accumulation
        accelerator.gradient_state._set_sync_gradients(False)
        loss = loss_of(next(iter(loader)))
        averaged.clear()
        accelerator.backward(loss)
        auto.step(loss)
    assert told[0]["event"] == "adaptive_lr_race"
    assert averaged
    assert all(averaged)
