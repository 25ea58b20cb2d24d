"""`AutoLRLoop` where one accelerator trains several times, as `find_executable_batch_size` has it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import find_executable_batch_size
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from aios.integrations.accelerate import AutoLRLoop
from integrations.tiny_trainers import same, weights

INPUTS = torch.randn(96, 8, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(INPUTS, INPUTS.sin().sum(1, keepdim=True))


@pytest.fixture(autouse=True)
def _one_accelerator_at_a_time() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def attempt(accelerator: Accelerator, batch_size: int) -> tuple[nn.Module, Any, AutoLRLoop]:
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer, loader = torch.optim.AdamW(model.parameters()), DataLoader(DATA, batch_size=batch_size)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    return model, loader, AutoLRLoop(accelerator, model, optimizer, 2 * len(loader))


def train(accelerator: Accelerator, model: nn.Module, loader: Any, auto: AutoLRLoop) -> None:
    for inputs, targets in loader:
        loss = nn.functional.mse_loss(model(inputs), targets)
        accelerator.backward(loss)
        auto.step(loss)


def test_attempts_that_ran_out_of_memory_leave_nothing_behind(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    models = list[weakref.ref[nn.Module]]()

    @find_executable_batch_size(starting_batch_size=10)
    def find(batch_size: int) -> nn.Module:
        accelerator.free_memory()
        model, loader, auto = attempt(accelerator, batch_size)
        assert [model() for model in models] == [None] * len(models)
        models.append(weakref.ref(model))
        train(accelerator, model, loader, auto)
        if batch_size > 8:
            raise RuntimeError("CUDA out of memory.")
        return model

    model = find()  # type: ignore[call-arg]
    assert len(models) == 3
    accelerator.save_state(str(tmp_path))  # the loop itself is out of sight, not of the checkpoint
    assert len(list(tmp_path.glob("custom_checkpoint_*"))) == 1

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    resumed, _, auto = attempt(accelerator, 8)
    accelerator.load_state(str(tmp_path))
    assert auto.auto.step_count == len(DATA) // 8
    assert same(weights(resumed), weights(model))


def test_a_loop_that_is_still_held_leaves_the_checkpoints_with_its_optimizer(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    first = attempt(accelerator, 8)
    accelerator.free_memory()
    second = attempt(accelerator, 8)
    accelerator.save_state(str(tmp_path))
    assert len(list(tmp_path.glob("custom_checkpoint_*"))) == 1
    train(accelerator, *second)
    assert (first[2].auto.step_count, second[2].auto.step_count) == (0, len(DATA) // 8)


def test_two_loops_at_once_are_both_saved(tmp_path: Path) -> None:
    accelerator = Accelerator(cpu=True)
    both = [attempt(accelerator, 8) for _ in range(2)]
    gc.collect()
    accelerator.save_state(str(tmp_path))
    assert len(list(tmp_path.glob("custom_checkpoint_*"))) == len(both)
