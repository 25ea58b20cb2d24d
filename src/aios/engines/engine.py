"""How one optimizer step's gradients come about and are applied: by one process, or by several with one model."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from aios.auto_lr.loop.engine import Engine, InProcess
from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.loop.update import clip_and_update
from aios.core.hrm_models import HRMForCausalLM, HRMOutput
from aios.core.hrm_models.batch import Batch
from aios.engines.device import Precision
from aios.engines.weight_average import WeightAverage

MODEL_NUMBERS = 4
"""Loss, cross-entropy, segments used, load-balancing loss."""
ASKED = ("stop", "finish")
"""What workers can ask each other for; the numbers of a step say how many of them did, as a mean."""
_DDP_ASKS = inspect.signature(DistributedDataParallel).parameters
_KEEP_BUFFERS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _DDP_ASKS else "broadcast_buffers": False
}
"""That no buffers are exchanged in a step, as this version of torch asks it: 2.13 warns of the name before."""


class TrainEngine(Engine, Protocol):
    """One optimizer step is `accumulate` for each micro-batch, then `average`, then `update`.

    It also says what of a checkpoint is its own, and writes and reads that itself.
    """

    @property
    def in_step(self) -> bool:
        """Whether every worker must run the same modules in the same order, evaluations included."""

    @property
    def ema(self) -> WeightAverage | None:
        """The average of the weights that is shown in their place; None where there is none."""

    @property
    def writes_parts(self) -> bool:
        """Whether every worker writes a part of each checkpoint."""

    def accumulate(
        self, batch: Batch, asked: Tensor, micro_batches: int, last: bool, skip_above: float = math.inf
    ) -> Tensor:
        """Add a micro-batch's share of the gradients; returns its share of the step's numbers.

        `batch` is on the device. The numbers are loss, cross-entropy, segments used and load-balancing loss, then those
        of `asked` (one per entry of ASKED), each over `micro_batches`: summed over the micro-batches they are the
        worker's means. An update on the way is skipped above the norm `skip_above`, as `update` does it.
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
    per_segment: bool = field(kw_only=True, default=False)
    """Whether each ACT segment has a backward pass of its own, so that one segment's activations are kept at a time."""
    updates_segments: bool = field(kw_only=True, default=False)
    """Whether each of them, all of one micro-batch, has an update of its own, too (HRM paper, section 2)."""
    ema: WeightAverage | None = field(kw_only=True, default=None)
    """Of this model, updated with it."""
    _norm_between: Tensor | None = field(init=False, default=None)
    """Largest gradient norm of the step's updates so far; None before the first."""
    in_step: ClassVar[bool] = False
    """Evaluations need no other worker."""
    writes_parts: ClassVar[bool] = False
    """The main worker writes all."""

    def accumulate(
        self, batch: Batch, asked: Tensor, micro_batches: int, last: bool, skip_above: float = math.inf
    ) -> Tensor:
        """As `TrainEngine.accumulate`."""
        losses = self._losses(batch)
        count = self.model.config.halt_max_steps if self.per_segment else 1
        for number in range(count):
            is_end = number + 1 == count
            with self._exchanging(self.updates_segments or (last and is_end)):
                with self.precision.autocast_context(self.device):
                    loss, out = self._next(losses)
                numbers = step_numbers(out, asked) / micro_batches if out is not None else None
                self._differentiate(loss * count if self.updates_segments else loss / micro_batches, numbers)
            if self.updates_segments and not is_end:
                self._update_between(skip_above)
        assert numbers is not None, "the model gives the step's numbers with its last loss"
        return numbers

    def _losses(self, batch: Batch) -> Iterator[tuple[Tensor, HRMOutput | None]]:
        """The parts of a micro-batch's loss that have a backward pass of their own, the last with the numbers."""
        if self.per_segment:
            return self.model.segment_losses(**batch._asdict(), updated=self.updates_segments)
        return _whole_loss(self.model, batch)

    def _next(self, losses: Iterator[tuple[Tensor, HRMOutput | None]]) -> tuple[Tensor, HRMOutput | None]:
        """The forward pass of one of them."""
        return next(losses)

    def _exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        """Whether gradients go to other workers with the backward pass in the block: there are none."""
        return nullcontext()

    def _differentiate(self, loss: Tensor, numbers: Tensor | None) -> None:
        """Backward pass of a part of the loss; `numbers` are there with the last one."""
        self.backward(loss)

    def _update_between(self, skip_above: float) -> None:
        """Intermediate update. Its loss is not checked: the gradient norm shows the same."""
        fine = torch.zeros((), device=self.device)
        norm = clip_and_update(self.model, self.optimizers, self.scaler, fine, self.max_grad_norm, skip_above)
        self._norm_between = torch.maximum(self._norm_between, norm) if self._norm_between is not None else norm

    def average(self, numbers: Tensor) -> Tensor:
        """Nothing to average with."""
        return numbers

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """As `Engine.update`, the norm being the largest of the step's; the average takes in what has come of it."""
        norm = super().update(loss, skip_above)
        if self._norm_between is not None:
            norm, self._norm_between = torch.maximum(norm, self._norm_between), None  # NaN if either is
        if self.ema is not None:
            self.ema.update()
        return norm

    def snapshot(self) -> Snapshot:
        """As `Engine.snapshot`, with the average."""
        if self.ema is None:
            return super().snapshot()
        tensors = [*self.model.parameters(), *self.model.buffers(), *self.ema.tensors]
        return Snapshot(self.model, self.optimizers, self.scaler, tensors)

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

    ddp: DistributedDataParallel = field(init=False)
    """What exchanges the gradients, around the model and the carrier of the numbers."""

    def __post_init__(self) -> None:
        carried = _Carrier(self.model, MODEL_NUMBERS + len(ASKED)).to(self.device)
        devices = [self.device] if self.device.type == "cuda" else None
        self.ddp = DistributedDataParallel(
            carried,
            device_ids=devices,
            **_KEEP_BUFFERS,  # no step changes them
            gradient_as_bucket_view=True,
        )

    @property
    def _numbers(self) -> nn.Parameter:
        return self.ddp.module.numbers

    def _next(self, losses: Iterator[tuple[Tensor, HRMOutput | None]]) -> tuple[Tensor, HRMOutput | None]:
        result: tuple[Tensor, HRMOutput | None] = self.ddp(losses)
        return result

    def _exchanging(self, exchanges: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged with the last backward pass of a step only."""
        return nullcontext() if exchanges else self.ddp.no_sync()

    def _differentiate(self, loss: Tensor, numbers: Tensor | None) -> None:
        total = self.scaler.scale(loss)
        if numbers is not None:
            total = total + (self._numbers * numbers).sum()
        elif self.updates_segments:
            total = total + 0.0 * self._numbers.sum()  # it takes part in every exchange
        total.backward()

    def average(self, numbers: Tensor) -> Tensor:
        """What came back as the gradient of the carrier."""
        carried = self._numbers.grad
        if carried is None:
            raise ValueError("average comes after accumulate: no numbers have been exchanged")
        self._numbers.grad = None
        return carried.detach().clone()  # a copy, because the next step overwrites the bucket


class _Carrier(nn.Module):
    """The model with one more parameter, in fp32, whose gradient carries the step's numbers."""

    def __init__(self, model: HRMForCausalLM, count: int) -> None:
        super().__init__()
        self.model = model
        self.numbers = nn.Parameter(torch.zeros(count))

    def forward(self, losses: Iterator[tuple[Tensor, HRMOutput | None]]) -> tuple[Tensor, HRMOutput | None]:
        """Have the model go on to its next loss."""
        return next(losses)


def _whole_loss(model: HRMForCausalLM, batch: Batch) -> Iterator[tuple[Tensor, HRMOutput | None]]:
    """The loss of a micro-batch in one."""
    out: HRMOutput = model(**batch._asdict())
    assert out.loss is not None
    yield out.loss, out


def step_numbers(out: HRMOutput, asked: Tensor) -> Tensor:
    """What a step reports of one forward pass, fp32 [4 + len(asked)], detached."""
    assert out.loss is not None
    assert out.ce is not None
    assert out.used_segments is not None
    balance = out.lb_loss if out.lb_loss is not None else torch.zeros_like(out.loss)
    numbers = torch.stack([out.loss, out.ce, out.used_segments, balance]).detach().float()
    return torch.cat([numbers, asked])
