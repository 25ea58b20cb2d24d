"""An exact copy of a training state in memory, and the way back to it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

RngState = dict[str, Any]


class Snapshot:
    """Weights, buffers, optimizer state, loss scale and random state, copied; `restore` brings all back bit for bit.

    The copies live where the originals do (on the GPU for a GPU model), so that taking one costs no transfer;
    `bytes` says how much memory that is. Raises nothing of its own; memory may run out. `tensors` are what is copied
    instead of the model's parameters and buffers, where the weights are kept elsewhere.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler | None = None,
        tensors: Iterable[Tensor] | None = None,
    ) -> None:
        self._model, self._optimizer, self._scaler = model, optimizer, scaler
        kept = tensors if tensors is not None else _tensors(model)
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in kept]
        self._state = {param: _copy(state) for param, state in optimizer.state.items()}
        self._groups = [
            {k: (v, _copy(v)) for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ]
        self._scale = scaler.state_dict() if scaler is not None else {}
        self._rng = rng_state()

    @property
    def bytes(self) -> int:
        """Memory the copies take."""
        kept = [copy for _, copy in self._tensors]
        kept += [v for state in self._state.values() for v in state.values() if isinstance(v, Tensor)]
        return sum(tensor.numel() * tensor.element_size() for tensor in kept)

    def restore(self) -> None:
        """Bring model, optimizer, scaler and random state back; can be called again and again."""
        with torch.no_grad():
            for tensor, copy in self._tensors:
                tensor.copy_(copy)
        self._optimizer.state.clear()
        for param, state in self._state.items():
            self._optimizer.state[param] = _copy(state)
        for group, saved in zip(self._optimizer.param_groups, self._groups, strict=True):
            group.update({name: _brought_back(value, copy) for name, (value, copy) in saved.items()})
        self._optimizer.zero_grad(set_to_none=True)
        if self._scaler is not None and self._scale:
            self._scaler.load_state_dict(self._scale)
        set_rng_state(self._rng)


def _tensors(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _copy(value: Any) -> Any:
    """A copy that shares no memory; optimizers keep numbers, tensors, and dicts or lists of them."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _brought_back(original: Any, copy: Any) -> Any:
    """The copied value; a tensor LR stays the same tensor, because captured graphs hold on to it."""
    if not isinstance(original, Tensor):
        return _copy(copy)
    original.detach().copy_(copy)
    return original


def rng_state() -> RngState:
    """The state of every random number generator a training step may use; loads with `weights_only=True`."""
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
    }


def set_rng_state(state: RngState) -> None:
    """Restore what `rng_state` returned; CUDA generators only where there are as many devices as before."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def seed(number: int) -> None:
    """Start every random number generator a training step may use from `number`."""
    torch.manual_seed(number)  # those of all CUDA devices, too
    random.seed(number)
