"""An exponential moving average of the weights, which is published and evaluated in their place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aios.core.exact_tensors import read_exactly

AVERAGE_FILE = "average.safetensors"
"""In a checkpoint whose model file holds averaged weights: those that are trained, the averages and their count."""
_TRAINED, _AVERAGED, _COUNT = "trained.", "averaged.", "updates"


class WeightAverage:
    """The average of each trained parameter, in fp32: kept <- decay * kept + (1 - decay) * weight after every step.

    Over the first steps the decay is (1 + n) / (10 + n) where that is less, as in TensorFlow's
    ExponentialMovingAverage: else a short run would show its random start. Used for HRMs by the Tiny Recursive Model
    (Jolicoeur-Martineau 2025, arXiv 2510.04871), with 0.999.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """Begins at the weights of `model`, which is on its device; `decay` from 0 to below 1."""
        self._decay = decay
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._kept = {name: p.detach().float().clone() for name, p in self._weights.items()}
        self._updates = torch.zeros(())  # on the host, so that the decay is known without waiting for the device

    @property
    def tensors(self) -> Sequence[Tensor]:
        """All that a snapshot has to keep."""
        return [*self._kept.values(), self._updates]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step, of one update or of several."""
        count = float(self._updates)
        self._updates += 1
        part = 1 - min(self._decay, (1 + count) / (10 + count))
        weights = [p.detach().float() for p in self._weights.values()]
        torch._foreach_lerp_(list(self._kept.values()), weights, part)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """While the block runs the model has the averages for weights; then its own again, bit for bit."""
        own = {name: p.detach().clone() for name, p in self._weights.items()}
        self._give(self._kept)
        try:
            yield
        finally:
            self._give(own)

    @torch.no_grad()
    def _give(self, tensors: dict[str, Tensor]) -> None:
        for name, weight in self._weights.items():
            weight.copy_(tensors[name])

    def save(self, folder: Path) -> None:
        """Write trained weights, averages and their count into a checkpoint's folder."""
        tensors = {name: tensor.detach().contiguous() for name, tensor in self._named().items()}
        save_file(tensors, folder / AVERAGE_FILE)

    def load(self, folder: Path) -> None:
        """Put back what `save` wrote; a checkpoint of a run without an average begins one at its weights.

        Raises:
            UserError: when the file holds others.
        """
        with torch.no_grad():
            if not holds_average(folder):
                self._updates.zero_()
                for name, weight in self._weights.items():
                    self._kept[name].copy_(weight)
                return
            own = self._named()
            for name, tensor in read_exactly(folder / AVERAGE_FILE, own).items():
                own[name].copy_(tensor)

    def _named(self) -> dict[str, Tensor]:
        trained: dict[str, Tensor] = {_TRAINED + name: p for name, p in self._weights.items()}
        return {**trained, **{_AVERAGED + name: t for name, t in self._kept.items()}, _COUNT: self._updates}


def holds_average(folder: Path) -> bool:
    """Whether the model file in a checkpoint's folder holds averages."""
    return (folder / AVERAGE_FILE).is_file()
