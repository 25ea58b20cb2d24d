"""Reading a step's numbers back from the device without making the host wait for it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

Tag = TypeVar("Tag")


class Launched(NamedTuple):
    """What the host knows of a step when it launches it."""

    step: int
    """Optimizer step, counted from 1."""
    lrs: list[float]
    """LR of the update, by param group."""
    tried: float | None
    """LR of base that a climb tries with it, before the ratios and scales of the param groups; None outside one."""
    skip_above: float
    """Gradient norm above which the update was to be skipped."""
    tag: Any
    """What the caller gave along."""
    told: bool = True
    """Whether it had a loss, and so an update."""


class StepReport(NamedTuple):
    """A step whose numbers have arrived."""

    launched: Launched
    """What was known before."""
    loss: float
    """The loss that is followed."""
    grad_norm: float
    """Global L2 norm of the gradient before clipping."""
    numbers: list[float]
    """What the caller gave along on the device."""


@dataclass(frozen=True)
class _Pending(Generic[Tag]):
    tag: Tag
    values: Tensor
    """On the host; on CUDA not yet filled until `copied` has happened."""
    copied: torch.cuda.Event | None


class Readback(Generic[Tag]):
    """A queue of (tag, vector of numbers) that runs one step late on CUDA and not late at all elsewhere.

    On CUDA each vector is copied to pinned memory in the background and read when the next step has been
    launched: the device always has work queued while the host reads. The lag is fixed, so runs are repeatable.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._pending: deque[_Pending[Tag]] = deque()

    def push(self, tag: Tag, values: Tensor) -> None:
        """Queue a float vector that lives on the device."""
        if not self._cuda:
            self._pending.append(_Pending(tag, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(values.device))
        self._pending.append(_Pending(tag, host, copied))

    def ready(self) -> list[tuple[Tag, list[float]]]:
        """Everything that is due: on CUDA all but the newest, elsewhere all."""
        return self._take(keep=1 if self._cuda else 0)

    def flush(self) -> list[tuple[Tag, list[float]]]:
        """Everything, waiting for the device if need be: before evaluations, checkpoints and the end."""
        return self._take(keep=0)

    def _take(self, keep: int) -> list[tuple[Tag, list[float]]]:
        taken: list[tuple[Tag, list[float]]] = []
        while len(self._pending) > keep:
            oldest = self._pending.popleft()
            if oldest.copied is not None:
                oldest.copied.synchronize()
            taken.append((oldest.tag, oldest.values.tolist()))
        return taken
