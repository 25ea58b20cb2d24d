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

from aios.errors import UserError
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


def loop(*models: nn.Module, loss_of: Any, accumulate: int = 1, **given: Any) -> tuple[Accelerator, Any, AutoLRLoop]:
    all_of_them, accelerator = nn.ModuleList(models), Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    data = DataLoader(TensorDataset(torch.randn(64, 8)), batch_size=8)
    optimizer, loader = accelerator.prepare(torch.optim.AdamW(all_of_them.parameters(), lr=1e-3), data)
    return accelerator, loader, AutoLRLoop(accelerator, all_of_them, optimizer, 330, loader, loss_of, **given)


def test_a_race_averages_the_gradients_of_each_of_several_models() -> None:
    torch.manual_seed(0)
    one, other = shared(), shared()
    averaged: list[bool] = []

    def loss_of(batch: list[Tensor]) -> Tensor:
        averaged.extend(model.require_backward_grad_sync for model in (one, other))
        return (one(batch[0]) + other(batch[0]) - batch[0].sum(1, keepdim=True)).square().mean()

    told: list[dict[str, Any]] = []
    accelerator, loader, auto = loop(one, other, loss_of=loss_of, accumulate=2, log_fn=told.append)
    with one.no_sync(), other.no_sync():  # as in the middle of an accumulation
        accelerator.gradient_state._set_sync_gradients(False)
        loss = loss_of(next(iter(loader)))
        averaged.clear()
        accelerator.backward(loss)
        auto.step(loss)
    assert told[0]["event"] == "adaptive_lr_race"
    assert averaged
    assert all(averaged)


def test_workers_that_do_not_average_their_gradients_are_refused() -> None:
    model = shared()
    accelerator, loader, auto = loop(model, loss_of=lambda batch: model(batch[0]).square().mean())
    before = [parameter.clone() for parameter in model.parameters()]
    with model.no_sync():  # which is what LocalSGD does
        loss = model(next(iter(loader))[0]).square().mean()
        accelerator.backward(loss)
        with pytest.raises(UserError, match="train without LocalSGD"):
            auto.step(loss)
    assert all(map(torch.equal, before, model.parameters()))
