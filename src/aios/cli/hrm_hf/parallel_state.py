"""What independent workers and their supervisor hand each other: the task, the weights, the state of each worker."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aios.core.exact_tensors import read_exactly
from aios.runs.checkpoint_state import PER_WORKER
from aios.settings.config import TrainingConfig

TOKENIZER_FOLDER = "tokenizer"
"""In the sitting's folder: the tokenizer that all workers use."""
OF_ALL_WORKERS = {"rank": None}
"""What every log record carries that is not one worker's."""
_TASK_FILE = "task.json"


@dataclass(frozen=True)
class Task:
    """What all workers of a sitting have in common."""

    config: TrainingConfig
    """Settings of the run."""
    gpus: tuple[int, ...] | None
    """CUDA device of each worker, as `--cuda-ids` counts them; None: they compute on the CPU."""
    world_size: int
    """Number of workers."""

    def write(self, folder: Path) -> None:
        """Leave the task in the sitting's folder for the workers."""
        plain = {"config": self.config.to_dict(), "gpus": self.gpus, "world_size": self.world_size}
        (folder / _TASK_FILE).write_text(json.dumps(plain), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Task:
        """The task that `write` left."""
        plain = json.loads((folder / _TASK_FILE).read_text(encoding="utf-8"))
        gpus = tuple(plain["gpus"]) if plain["gpus"] is not None else None
        return cls(TrainingConfig(**plain["config"]), gpus, plain["world_size"])

    def next_merge(self, step: int) -> int:
        """The step at which the round ends that begins at `step`."""
        every = self.config.merge_every
        return min((step // every + 1) * every, self.config.steps)

    def tags(self, rank: int) -> dict[str, int]:
        """What every log record of worker `rank` carries."""
        return {"rank": rank} if self.gpus is None else {"rank": rank, "gpu_id": self.gpus[rank]}


def save_trained(model: nn.Module, path: Path) -> None:
    """Write what training changes of `model`, trained parameters and buffers, as safetensors."""
    save_file({name: tensor.detach().contiguous() for name, tensor in _trained(model).items()}, path)


def load_trained(model: nn.Module, path: Path) -> None:
    """Put the tensors that `save_trained` wrote, or their mean, back into a model of the same shape.

    Raises:
        UserError: when the file holds other tensors.
    """
    trained = _trained(model)
    with torch.no_grad():
        for name, tensor in read_exactly(path, trained).items():
            trained[name].copy_(tensor)


def _trained(model: nn.Module) -> dict[str, Tensor]:
    trained: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return trained | dict(model.named_buffers())


def join_states(states: Sequence[dict[str, Any]], config: TrainingConfig) -> dict[str, Any]:
    """One checkpoint dict out of the workers' own, by rank: what each has its own of becomes a list.

    `step` is what every worker has reached; a worker may be beyond it (`worker_steps`), because a stop cut
    the round short.
    """
    steps = [int(state["step"]) for state in states]
    own = {key: [state[key] for state in states] for key in PER_WORKER if key in states[0]}
    shared = {"config": config.to_dict(), "eval_id": states[0]["eval_id"]}
    return {"step": min(steps), "worker_steps": steps, **shared, **own}


def split_state(state: dict[str, Any], rank: int, world_size: int) -> dict[str, Any]:
    """The checkpoint dict that worker `rank` of `world_size` goes on from.

    Saved by as many workers, it is this worker's own to the last bit. Saved by another number (one, too), the worker
    takes over learning rate, moments and scheduler of worker `rank` modulo that number, and the data go on behind
    the last sample that any of them had drawn: none is seen twice.
    """
    steps = state.get("worker_steps")
    if steps is None:
        return state
    source = rank % len(steps)
    own = {key: state[key][source] for key in PER_WORKER if key in state}
    if world_size != len(steps):
        own["data"] = max(state["data"], key=lambda data: int(data["samples"]))
    shared = {key: value for key, value in state.items() if key != "worker_steps"}  # it is one worker's now
    return {**shared, **own, "step": steps[source]}
