"""What the model is given in one call, with what is to be learned of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from aios.core.hrm_models.supervision import IGNORE_INDEX


class Batch(NamedTuple):
    """Rows of tokens; of plain text both are one and the same tensor."""

    input_ids: Tensor
    """int64 (rows, time)."""
    labels: Tensor
    """The same, but `IGNORE_INDEX` where a token is only read."""

    @classmethod
    def of_stored(cls, stored: Tensor) -> Batch:
        """From tokens of which those that are only read are the complements of their ids."""
        only_read = stored < 0
        return cls(torch.where(only_read, ~stored, stored), stored.masked_fill(only_read, IGNORE_INDEX))

    @property
    def targets(self) -> int:
        """Tokens predicted. Of rows on a device this waits for it."""
        after_first = self.labels[:, 1:]
        if self.labels is self.input_ids:
            return after_first.numel()
        return int((after_first != IGNORE_INDEX).sum())

    def to(self, device: torch.device) -> Batch:
        """The batch on the device; on CUDA copied in the background."""
        ids = _moved(self.input_ids, device)
        return Batch(ids, ids if self.labels is self.input_ids else _moved(self.labels, device))


def _moved(tokens: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tokens.to(device)
    return tokens.pin_memory().to(device, non_blocking=True)
