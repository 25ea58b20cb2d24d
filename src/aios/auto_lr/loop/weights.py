"""What the weights tell of themselves: how much an update changes them, and whether they have been trained before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Weight = TypeVar("Weight", bound=Tensor)

TRAINED_NORM = 1.25
"""Spectral norm, as a multiple of what random entries give it, from which on a matrix has learned something."""
FEW = 8
"""The RMS of fewer numbers than this is chance: one of them may be near zero."""
_LEAST_SIDE = 8
_POWER_STEPS = 12


class ChangeMeter:
    """Measures an update: the RMS of what it changes over the RMS of the weights, the median over all matrices.

    Median, because embeddings outweigh the rest. Left out are vectors, unless there is nothing else, and weights that
    are zero or did not move. Where all weights together are fewer than `FEW`, they are taken as one. Zero-initialised
    weights are compared with a typical norm, if nothing else moves: that of the other weights, or what torch gives a
    layer. Nothing waits for the device, `device`, where the numbers are; only norms of weights that are elsewhere are
    copied to it.
    """

    def __init__(self, weights: Iterable[Tensor], device: torch.device) -> None:
        self._weights, self._device = [w for w in weights if w.numel()], device
        self._matrices = torch.tensor([w.ndim >= 2 for w in self._weights], device=device)
        self._as_one = sum(w.numel() for w in self._weights) < FEW
        roots = torch.tensor([math.sqrt(w.numel()) for w in self._weights], device=device)
        first = self._norms(self._now())
        usual = torch.where(first > 0, first / roots, torch.nan).nanmedian()
        layers = torch.tensor([_rms_of_layer(w) for w in self._weights], device=device)
        self._stand_in_norms = torch.where(first > 0, torch.nan, torch.where(usual.isnan(), layers, usual) * roots)
        """Norms that stand for those of weights which were zero at first; NaN for all others."""
        self._before: list[Tensor] = []

    def mark(self) -> None:
        """Remember the current weights."""
        self._before = [w.clone() for w in self._now()]

    def measure(self) -> Tensor:
        """The change since `mark`, a scalar on the device; 0 where there is none."""
        if not self._before:
            return torch.zeros((), device=self._device)
        moved = self._norms(torch._foreach_sub(self._now(), self._before))
        sizes = self._norms(self._before)
        others = self._matrices & self._stand_in_norms.isnan() & (moved > 0)
        sizes = torch.where(others.any(), sizes, sizes.fmax(self._stand_in_norms))
        if self._as_one:
            return torch.nan_to_num(moved.norm() / sizes.norm(), nan=0.0)
        changed = (sizes > 0) & (moved > 0)
        matrices = self._matrices & changed
        counts = torch.where(matrices.any(), matrices, changed)
        ratios = torch.where(counts, moved / sizes.clamp_min(torch.finfo(torch.float32).tiny), torch.nan)
        return torch.nan_to_num(ratios.nanmedian(), nan=0.0)

    def _now(self) -> list[Tensor]:
        """The weights, looked up anew: an optimizer may put other tensors in their places (`p.data = ...`)."""
        return [w.detach() for w in self._weights]

    def _norms(self, tensors: Iterable[Tensor]) -> Tensor:
        """The L2 norm of each."""
        listed = list(tensors)
        if not listed:
            return torch.zeros(0, device=self._device)
        return torch.stack([norm.float().to(self._device) for norm in torch._foreach_norm(listed)])


def _rms_of_layer(weight: Tensor) -> float:
    """RMS of a weight as torch's linear and convolutional layers begin: uniform, to 1 / sqrt(inputs) (He 2015)."""
    inputs = weight[0].numel() if weight.ndim >= 2 else weight.numel()
    return 1 / math.sqrt(3 * inputs)


def resolution(weights: Iterable[Tensor]) -> float:
    """Relative distance of neighbouring numbers of the type in which most of the weights, by number, are kept."""
    numbers: dict[torch.dtype, int] = {}
    for weight in weights:
        numbers[weight.dtype] = numbers.get(weight.dtype, 0) + weight.numel()
    return float(torch.finfo(max(numbers, key=lambda dtype: numbers[dtype])).eps) if numbers else 0.0


def looks_trained(weights: Iterable[Tensor]) -> bool:
    """Whether most of the weights, by number, lie in matrices that are not random any more.

    The spectral norm of a matrix [m, n] of independent entries of standard deviation s, whatever their distribution,
    is s (sqrt m + sqrt n) (Bai and Yin 1993); training adds directions that stand out far above that (Martin and
    Mahoney 2021, arXiv 1810.01075). Orthogonal matrices lie below. Matrices that are too small to tell are left out.
    """
    trained = judged = 0
    for weight in weights:
        matrix = weight.detach().flatten(1) if weight.ndim >= 2 else None
        if matrix is None or min(matrix.shape) < _LEAST_SIDE:
            continue
        norm = _relative_norm(matrix.float())
        if norm is not None:
            judged += matrix.numel()
            trained += matrix.numel() if norm > TRAINED_NORM else 0
    return 2 * trained > judged


def _relative_norm(matrix: Tensor) -> float | None:
    """Spectral norm over what random entries would give it; None for a matrix of zeros."""
    sigma = float(matrix.std())
    if not sigma > 0 or not math.isfinite(sigma):
        return None
    generator = torch.Generator().manual_seed(0)  # its own, so that training draws the same numbers afterwards
    vector = torch.randn(matrix.shape[1], generator=generator, dtype=matrix.dtype).to(matrix.device)
    for _ in range(_POWER_STEPS):
        vector = torch.nn.functional.normalize(matrix.T @ (matrix @ vector), dim=0)
    rows, columns = matrix.shape
    return float((matrix @ vector).norm()) / (sigma * (math.sqrt(rows) + math.sqrt(columns)))


def all_trained(model: nn.Module, optimizers: Iterable[Any]) -> list[Tensor]:
    """The parameters of `model`, and those that the optimizers hold besides: of a loss with weights of its own, say."""
    own = list(model.parameters())
    known = {id(parameter) for parameter in own}
    return own + [weight for weight in _in_groups(optimizers) if id(weight) not in known]


def held_by(optimizers: Iterable[Any], model: nn.Module) -> list[Tensor]:
    """Those of `all_trained` that the optimizers hold, in that order."""
    held = {id(weight) for weight in _in_groups(optimizers)}
    return [weight for weight in all_trained(model, optimizers) if id(weight) in held]


def _in_groups(optimizers: Iterable[Any]) -> Iterator[Tensor]:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            yield from group["params"]


def left_to_others(model: nn.Module, optimizers: Iterable[Any]) -> list[nn.Parameter]:
    """The parameters of `model` that learn, but not by these optimizers: somebody else trains them, or nobody does.

    None are where the optimizers hold no parameter as the model does: they have the weights in another form.
    """
    held = {id(weight) for weight in held_by(optimizers, model)}
    learning = trainable(model.parameters())
    others = [weight for weight in learning if id(weight) not in held]
    return others if len(others) < len(learning) else []


@contextmanager
def gradients_kept(parameters: Iterable[Tensor]) -> Iterator[None]:
    """Have the gradients after the block be those of before it; within there are none at first."""
    kept = [(parameter, parameter.grad) for parameter in parameters]
    for parameter, _ in kept:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in kept:
            parameter.grad = grad


def trainable(parameters: Iterable[Weight]) -> list[Weight]:
    """Those that learn."""
    return [p for p in parameters if p.requires_grad]
