"""Checkpoints of independent workers: each worker's own state in, each worker's own state out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from aios.cli.hrm_hf.parallel_state import Task, join_states, load_trained, save_trained, split_state
from aios.cli.hrm_hf.parallel_training_v3 import worker_environment
from aios.errors import UserError
from aios.settings.config import TrainingConfig

CONFIG = TrainingConfig(parallel_independent=True, world_size=3, merge_every=40, steps=100)
KEYS = ("optimizer", "scaler", "rng", "adaptive_lr")


def state_of(rank: int) -> dict[str, Any]:
    own: dict[str, Any] = {key: f"{key} of {rank}" for key in KEYS}
    return {
        "step": 80 - rank,
        **own,
        "data": {"id": "text", "samples": 1000 - rank},
        "config": "its own",
        "eval_id": "0a",
    }


JOINED = join_states([state_of(rank) for rank in range(3)], CONFIG)


def test_as_many_workers_go_on_with_what_was_theirs() -> None:
    assert JOINED["step"] == 78  # what all of them have reached
    assert JOINED["config"] == CONFIG.to_dict()
    assert JOINED["eval_id"] == "0a"
    for rank in range(3):
        mine = split_state(JOINED, rank, 3)
        assert {key: mine[key] for key in (*KEYS, "data", "step")} == {
            key: state_of(rank)[key] for key in (*KEYS, "data", "step")
        }


@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_another_number_of_workers_takes_over_learning_rates_and_sees_no_sample_twice(world_size: int) -> None:
    for rank in range(world_size):
        mine = split_state(JOINED, rank, world_size)
        assert mine["adaptive_lr"] == f"adaptive_lr of {rank % 3}"
        assert mine["data"]["samples"] == 1000


def test_workers_go_on_from_the_checkpoint_of_an_ordinary_run() -> None:
    assert split_state(state_of(0), 2, 3) == state_of(0)


def test_a_task_survives_the_way_to_the_workers(tmp_path: Path) -> None:
    task = Task(CONFIG, (0, 2, 3), 3)
    task.write(tmp_path)
    assert Task.read(tmp_path) == task
    assert task.tags(1) == {"rank": 1, "gpu_id": 2}
    assert Task(CONFIG, None, 3).tags(1) == {"rank": 1}


def test_merges_come_at_multiples_and_at_the_end() -> None:
    task = Task(CONFIG, None, 3)
    assert [task.next_merge(step) for step in (0, 39, 40, 57, 80, 99)] == [40, 40, 80, 80, 100, 100]


def test_each_worker_sees_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(CONFIG, (0, 2, 3), 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert [worker_environment(task, rank)["CUDA_VISIBLE_DEVICES"] for rank in range(3)] == ["0", "2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7, 5,6,GPU-a")
    assert [worker_environment(task, rank)["CUDA_VISIBLE_DEVICES"] for rank in range(3)] == ["7", "6", "GPU-a"]


def test_what_is_trained_travels_and_what_is_frozen_stays(tmp_path: Path) -> None:
    def model(value: float) -> nn.Sequential:
        made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
        made[2].requires_grad_(False)
        for tensor in (*made.parameters(), *made.buffers()):
            with torch.no_grad():
                tensor.fill_(value)
        return made

    save_trained(model(1.0), tmp_path / "w.safetensors")
    taker = model(0.0)
    load_trained(taker, tmp_path / "w.safetensors")
    assert float(taker[0].weight.detach().sum()) == 4.0
    assert float(taker[1].running_var.detach().sum()) == 2.0
    assert float(taker[2].weight.detach().sum()) == 0.0


def test_merged_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_trained(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2)), tmp_path / "w.safetensors")
    taker = nn.Sequential(nn.Linear(2, 2))
    before = taker[0].weight.detach().clone()
    with pytest.raises(UserError, match=r"has besides 1\.bias, 1\.weight, has misshapen 0\.bias \(3 instead of 2\)"):
        load_trained(taker, tmp_path / "w.safetensors")
    assert torch.equal(taker[0].weight, before)


def test_what_one_worker_goes_on_from_is_not_split_again() -> None:
    mine = split_state(JOINED, 1, 1)
    assert split_state(mine, 0, 1) == mine
