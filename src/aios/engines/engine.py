"""How one optimizer step's gradients come about and are applied: by one process, or by several with one model."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.loop.update import clip_and_update
from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.modeling_hrm import HRMOutput
from aios.engines.device import Precision

MODEL_NUMBERS = 4
"""Loss, cross-entropy, segments used, load-balancing loss."""


class Engine(Protocol):
    """One optimizer step is `accumulate` for each micro-batch, then `average`, then `update`."""

    @property
    def in_step(self) -> bool:
        """Whether every worker must run the same modules in the same order, evaluations included."""

    @property
    def schedules_lr(self) -> bool:
        """Whether a scheduler of the engine's own sets the LR, after each update."""

    @property
    def snapshot_obstacle(self) -> str | None:
        """Why there are no exact snapshots; None when there are."""

    def snapshot(self) -> Snapshot:
        """A copy of the training state, to be restored by all workers together."""

    def accumulate(self, batch: Tensor, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """Add a micro-batch's share of the gradients; returns its share of the step's numbers.

        `batch` is int64 (rows, time) on the device. The numbers are loss, cross-entropy, segments used and
        load-balancing loss, then those of `asked`, each over `micro_batches`: summed over the micro-batches they
        are the worker's means.
        """

    def average(self, numbers: Tensor) -> Tensor:
        """The step's numbers as means over all workers, equal on each; call it once, after the last micro-batch."""

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """Clip, update, clear the gradients; returns their norm over all workers, before clipping, on the device.

        The update is skipped when `loss` (averaged) or the norm is not finite, or the norm is above `skip_above`.
        """


@dataclass
class LocalEngine:
    """The model trains in this process alone."""

    model: HRMForCausalLM
    """On `device`."""
    optimizer: torch.optim.Optimizer
    """Of the model's parameters."""
    scaler: torch.amp.GradScaler
    """Loss scaling; disabled unless the precision wants it."""
    precision: Precision
    """Number types."""
    device: torch.device
    """Where to compute."""
    max_grad_norm: float
    """Global L2 norm to clip at."""
    in_step: ClassVar[bool] = False
    """Evaluations need no other worker."""
    schedules_lr: ClassVar[bool] = False
    """The LR is set from outside."""
    snapshot_obstacle: ClassVar[str | None] = None
    """There are snapshots."""

    def snapshot(self) -> Snapshot:
        """As `Engine.snapshot`."""
        return Snapshot(self.model, self.optimizer, self.scaler)

    def accumulate(self, batch: Tensor, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """As `Engine.accumulate`."""
        with self.precision.autocast_context(self.device):
            out = self.model(input_ids=batch, labels=batch)
        self.scaler.scale(out.loss / micro_batches).backward()
        return step_numbers(out, asked) / micro_batches

    def average(self, numbers: Tensor) -> Tensor:
        """Nothing to average with."""
        return numbers

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """As `Engine.update`."""
        return clip_and_update(self.model, self.optimizer, self.scaler, loss, self.max_grad_norm, skip_above)


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

    def accumulate(self, batch: Tensor, asked: Tensor, micro_batches: int, last: bool) -> Tensor:
        """As `Engine.accumulate`; gradients are exchanged with the last micro-batch only."""
        sync: AbstractContextManager[Any] = nullcontext() if last else self._ddp.no_sync()
        with sync:
            with self.precision.autocast_context(self.device):
                out = self._ddp(batch)
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

    def forward(self, batch: Tensor) -> HRMOutput:
        output: HRMOutput = self.model(input_ids=batch, labels=batch)
        return output


def step_numbers(out: HRMOutput, asked: Tensor) -> Tensor:
    """What a step reports of one forward pass, fp32 [4 + len(asked)], detached."""
    assert out.loss is not None
    assert out.ce is not None
    assert out.used_segments is not None
    balance = out.lb_loss if out.lb_loss is not None else torch.zeros_like(out.loss)
    numbers = torch.stack([out.loss, out.ce, out.used_segments, balance]).detach().float()
    return torch.cat([numbers, asked])
