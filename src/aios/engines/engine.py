"""How one optimizer step's gradients come about and are applied: by one process, or by several with one model."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aios.auto_lr.loop.engine import Engine, InProcess
from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.batch import Batch
from aios.core.hrm_models.modeling_hrm import HRMOutput
from aios.engines.device import Precision

MODEL_NUMBERS = 4
"""Loss, cross-entropy, segments used, load-balancing loss."""


class TrainEngine(Engine, Protocol):
    """One optimizer step is `accumulate` for each micro-batch, then `average`, then `update`.

    It also says what of a checkpoint is its own, and writes and reads that itself.
    """

    @property
    def in_step(self) -> bool:
        """Whether every worker must run the same modules in the same order, evaluations included."""

    @property
    def writes_parts(self) -> bool:
        """Whether every worker writes a part of each checkpoint."""

    def accumulate(self, batch: Batch, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """Add a micro-batch's share of the gradients; returns its share of the step's numbers.

        `batch` is on the device. The numbers are loss, cross-entropy, segments used and
        load-balancing loss, then those of `asked`, each over `micro_batches`: summed over the micro-batches they
        are the worker's means.
        """

    def average(self, numbers: Tensor) -> Tensor:
        """The step's numbers as means over all workers, equal on each; call it once, after the last micro-batch."""

    def optimizer_state(self) -> dict[str, Any] | None:
        """What the checkpoint dict holds of the optimizer; None where the engine writes it itself."""

    def save(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Write this worker's part, with what of the checkpoint dict `state` goes along, below `folder`."""

    def load(self, folder: Path) -> dict[str, Any]:
        """Take over what `save` wrote; returns the entries of the checkpoint dict that lay there."""


@dataclass
class LocalEngine(InProcess):
    """The model trains in this process alone."""

    model: HRMForCausalLM
    """On `device`."""
    precision: Precision = field(kw_only=True)
    """Number types."""
    in_step: ClassVar[bool] = False
    """Evaluations need no other worker."""
    writes_parts: ClassVar[bool] = False
    """The main worker writes all."""

    def accumulate(self, batch: Batch, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """As `TrainEngine.accumulate`."""
        with self.precision.autocast_context(self.device):
            out = self.model(**batch._asdict())
        self.backward(out.loss / micro_batches)
        return step_numbers(out, asked) / micro_batches

    def average(self, numbers: Tensor) -> Tensor:
        """Nothing to average with."""
        return numbers

    def optimizer_state(self) -> dict[str, Any]:
        """As `TrainEngine.optimizer_state`: of several, one state dict as if they were one optimizer."""
        state: dict[str, Any] = {"state": {}, "param_groups": []}
        before = 0  # parameters of the optimizers before
        for own in (optimizer.state_dict() for optimizer in self.optimizers):
            state["state"] |= {before + i: moments for i, moments in own["state"].items()}
            state["param_groups"] += [{**g, "params": [before + i for i in g["params"]]} for g in own["param_groups"]]
            before += sum(len(group["params"]) for group in own["param_groups"])
        return state

    def save(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Nothing of its own."""

    def load(self, folder: Path) -> dict[str, Any]:
        """Nothing of its own."""
        return {}


@dataclass
class DDPEngine(LocalEngine):
    """Every worker holds the whole model; gradients are averaged while backward runs (DistributedDataParallel).

    The step's numbers travel with the gradients: they are made the gradient of a parameter that no optimizer
    holds, and come back averaged. So every worker sees the same loss, bit for bit, a NaN of one is a NaN of all,
    a request to stop reaches all at the same step, and there is no collective besides the gradients' own.
    """

    asked_numbers: int = 2
    """Length of `asked`."""
    _ddp: DistributedDataParallel = field(init=False)

    def __post_init__(self) -> None:
        carried = _Carrier(self.model, MODEL_NUMBERS + self.asked_numbers).to(self.device)
        devices = [self.device] if self.device.type == "cuda" else None
        self._ddp = DistributedDataParallel(carried, device_ids=devices)

    @property
    def _numbers(self) -> nn.Parameter:
        return self._ddp.module.numbers

    def accumulate(self, batch: Batch, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """As `TrainEngine.accumulate`; gradients are exchanged with the last micro-batch only."""
        sync: AbstractContextManager[Any] = nullcontext() if last else self._ddp.no_sync()
        with sync:
            with self.precision.autocast_context(self.device):
                out = self._ddp(**batch._asdict())
            numbers = step_numbers(out, asked) / micro_batches
            carrier = (self._numbers * numbers).sum()
            (self.scaler.scale(out.loss / micro_batches) + carrier).backward()
        return numbers

    def average(self, numbers: Tensor) -> Tensor:
        """What came back as the gradient of the carrier."""
        carried = self._numbers.grad
        assert carried is not None, "average() comes after accumulate()"
        self._numbers.grad = None
        return carried.detach()


class _Carrier(nn.Module):
    """The model with one more parameter, in fp32, whose gradient carries the step's numbers."""

    def __init__(self, model: HRMForCausalLM, count: int) -> None:
        super().__init__()
        self.model = model
        self.numbers = nn.Parameter(torch.zeros(count))

    def forward(self, input_ids: Tensor, labels: Tensor) -> HRMOutput:
        output: HRMOutput = self.model(input_ids=input_ids, labels=labels)
        return output


def step_numbers(out: HRMOutput, asked: Tensor) -> Tensor:
    """What a step reports of one forward pass, fp32 [4 + len(asked)], detached."""
    assert out.loss is not None
    assert out.ce is not None
    assert out.used_segments is not None
    balance = out.lb_loss if out.lb_loss is not None else torch.zeros_like(out.loss)
    numbers = torch.stack([out.loss, out.ce, out.used_segments, balance]).detach().float()
    return torch.cat([numbers, asked])
