"""How many activations a step of training keeps at its peak, by the number of ACT segments.

`python scripts/segment_activations.py` prints a line of JSON for each number of segments: the bytes that autograd holds
at most, of a step of preset `tiny` on 8 sequences of 128 tokens, differentiated as a whole and segment by segment. They
are counted, not measured, so that they are the same on every machine.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aios.core.architecture import PRESETS
from aios.core.hrm_models import HRMConfig, HRMForCausalLM

SEGMENTS = (1, 2, 4, 8, 16)
ROWS, TIME, VOCABULARY = 8, 128, 2048


class _Kept:
    """A tensor that autograd holds; counted once, however often it is held."""

    def __init__(self, tensor: Tensor, count: PeakCount) -> None:
        self.tensor, self._count = tensor, count
        count.take(tensor, 1)

    def __del__(self) -> None:
        self._count.take(self.tensor, -1)


class PeakCount:
    """Bytes of what autograd holds for backward passes, weights left out: now, and at most so far."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._weights = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        self._holders: dict[int, int] = {}
        self.now = self.peak = 0

    def take(self, tensor: Tensor, holders: int) -> None:
        """Count `holders` more that hold `tensor`."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._weights:
            return
        before = self._holders.get(place, 0)
        self._holders[place] = before + holders
        self.now += storage.nbytes() * (int(before + holders > 0) - int(before > 0))
        self.peak = max(self.peak, self.now)

    def __enter__(self) -> PeakCount:
        def keep(tensor: Tensor) -> _Kept:
            return _Kept(tensor, self)

        def hand_back(kept: _Kept) -> Tensor:
            return kept.tensor

        self._hooks = torch.autograd.graph.saved_tensors_hooks(keep, hand_back)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)


def whole(model: HRMForCausalLM, ids: Tensor) -> None:
    """A step with one backward pass."""
    loss = model(ids, labels=ids).loss
    assert loss is not None
    loss.backward()


def by_segment(model: HRMForCausalLM, ids: Tensor) -> None:
    """A step with a backward pass for each segment."""
    for loss, _ in model.segment_losses(ids, ids):
        loss.backward()


def peak_bytes(step: Callable[[HRMForCausalLM, Tensor], None], segments: int, **shape: Any) -> int:
    """Most bytes that autograd holds in one step of `tiny`, which `shape` overrides."""
    torch.manual_seed(0)
    body = {**dataclasses.asdict(PRESETS["tiny"]), "halt_max_steps": segments, **shape}
    model = HRMForCausalLM(HRMConfig(vocab_size=VOCABULARY, max_position_embeddings=TIME, **body)).train()
    ids = torch.randint(0, VOCABULARY, (ROWS, TIME))
    with PeakCount(model) as count:
        step(model, ids)
    return count.peak


def main() -> int:
    """Count, print."""
    for segments in SEGMENTS:
        told = {"whole_mb": whole, "by_segment_mb": by_segment}
        print(json.dumps({"segments": segments, **{n: peak_bytes(s, segments) / 1e6 for n, s in told.items()}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
