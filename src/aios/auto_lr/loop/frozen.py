"""Copies of weights that nobody trains: one for all snapshots, in the host's memory, as long as they stay as they are.

Beside a LoRA adapter lies a model of gigabytes that never changes; beside a student a teacher that follows it. The one
costs an accelerator no memory here, the other is brought back like everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 2**24
"""Entries summed at a time: torch widens them first."""


@dataclass(frozen=True)
class FrozenCopy:
    """A tensor, and what was in it."""

    tensor: Tensor
    copy: Tensor
    """On the CPU."""
    checksum: Tensor | None
    """Of the copy, on the tensor's device; None where the two can be compared directly."""

    @classmethod
    def of(cls, tensor: Tensor) -> FrozenCopy:
        """Copy it."""
        copy = tensor.detach().to("cpu", copy=True)
        return cls(tensor, copy, None if tensor.device == copy.device else checksum(tensor))

    def holds(self) -> Tensor:
        """Whether the tensor is what it was, a scalar on its device."""
        if self.checksum is None:
            return torch.tensor(_bits(self.tensor).equal(_bits(self.copy)))
        return checksum(self.tensor) == self.checksum


class FrozenCopies:
    """The newest copy of each frozen tensor that was asked for."""

    def __init__(self) -> None:
        self._known: dict[int, FrozenCopy] = {}  # by id of the tensor, which the copy keeps alive

    def of(self, tensors: Iterable[Tensor]) -> list[FrozenCopy]:
        """A copy of each as it is now: the one known, or a new one."""
        listed = list(tensors)
        known = [self._known[id(tensor)] for tensor in listed if id(tensor) in self._known]
        current = {id(one.tensor) for one, holds in zip(known, all_hold(known), strict=True) if holds}
        self._known |= {id(tensor): FrozenCopy.of(tensor) for tensor in listed if id(tensor) not in current}
        return [self._known[id(tensor)] for tensor in listed]


def restore_frozen(copies: Iterable[FrozenCopy]) -> None:
    """Bring back what was in the tensors that have changed."""
    listed = list(copies)
    for one, holds in zip(listed, all_hold(listed), strict=True):
        if not holds:
            one.tensor.copy_(one.copy)


def all_hold(copies: Sequence[FrozenCopy]) -> list[bool]:
    """Of each whether its tensor is what it was; waits for a device once."""
    if not copies:
        return []
    device = copies[0].tensor.device
    held: list[bool] = torch.stack([one.holds().to(device) for one in copies]).tolist()
    return held


def frozen_in(model: nn.Module) -> list[Tensor]:
    """The parameters of `model` that do not learn and lie in memory in the plain way."""
    return [p for p in model.parameters() if not p.requires_grad and _is_plain(p)]


def checksum(tensor: Tensor) -> Tensor:
    """The sum of its entries as integers, an int64 scalar on its device: another one as soon as they change, but for a
    chance of about one in the number of values it can take."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for chunk in _bits(tensor).flatten().split(_CHUNK):
        total += chunk.sum(dtype=torch.int64)
    return total


def _bits(tensor: Tensor) -> Tensor:
    """Its entries as integers: NaN equals itself then."""
    return tensor.detach().view(_INTEGERS[tensor.element_size()])


def _is_plain(parameter: Tensor) -> bool:
    known = type(parameter) in (Tensor, nn.Parameter) and not (parameter.is_quantized or parameter.is_meta)
    return known and parameter.is_contiguous() and parameter.element_size() in _INTEGERS and parameter.numel() > 0
