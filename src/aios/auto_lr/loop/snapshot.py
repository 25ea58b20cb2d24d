"""An exact copy of a training state in memory, and the way back to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from aios.auto_lr.loop.frozen import FrozenCopies, frozen_in, restore_frozen
from aios.auto_lr.loop.optimizer_copy import OptimizerCopy
from aios.auto_lr.loop.random_state import process_state, random_numbers_kept, set_process_state
from aios.auto_lr.loop.weights import all_trained, left_to_others
from aios.auto_lr.param_groups import as_several
from aios.auto_lr.recovery import Restorable


class Snapshot:
    """Weights, buffers, optimizer state, loss scale and random state, copied; `restore` brings all back bit for bit.

    The copies live where the originals do (on the GPU for a GPU model), so that taking one costs no transfer;
    `bytes` says how much memory that is. Weights that the optimizers hold besides the model's are among them; those
    that nobody trains are among the `frozen`. What of the model learns, but not by these optimizers, is left as it is:
    somebody else trains it. What cannot be written in place is left out, for it cannot have changed. `tensors` are
    what is copied instead of all these where the weights are kept elsewhere. Raises ValueError for an optimizer that
    keeps what cannot be copied; memory may run out.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler | None = None,
        tensors: Iterable[Tensor] | None = None,
        frozen: FrozenCopies | None = None,
    ) -> None:
        self._scaler = scaler
        self._model, self._several = model, as_several(optimizers)
        kept = list(tensors if tensors is not None else [*all_trained(model, self._several), *model.buffers()])
        apart = {id(tensor): tensor for tensor in frozen_in(model)} if tensors is None else {}
        copied = [tensor for tensor in kept if id(tensor) not in apart and _can_be_written(tensor)]
        self._tensors = [(tensor, tensor.detach().clone()) for tensor in copied]
        self._frozen = (frozen or FrozenCopies()).of(apart.values())
        self._buffers = [(part._buffers, name, own) for part in model.modules() for name, own in part._buffers.items()]
        of_model = frozenset(id(tensor) for tensor in [*kept, *model.parameters(), *model.buffers()])
        self._optimizers = [OptimizerCopy(optimizer, of_model) for optimizer in self._several]
        self._scale = scaler.state_dict() if scaler is not None else {}
        self._random = process_state()

    @property
    def bytes(self) -> int:
        """Memory the copies take."""
        weights = sum(copy.nbytes for _, copy in self._tensors)
        return weights + sum(optimizer.bytes for optimizer in self._optimizers)

    def restore(self) -> None:
        """Bring model, optimizers, scaler and random state back; can be called again and again."""
        for buffers, name, own in self._buffers:
            buffers[name] = own  # a module may put another tensor in its place
        self._restore_tensors()
        torch.clear_autocast_cache()  # it may hold casts of the weights
        for optimizer in self._optimizers:
            optimizer.restore()
        if self._scaler is not None and self._scale:
            self._scaler.load_state_dict(self._scale)
        set_process_state(self._random)

    def _restore_tensors(self) -> None:
        others = {id(parameter) for parameter in left_to_others(self._model, self._several)}
        with torch.no_grad():
            for tensor, copy in self._tensors:
                if id(tensor) in others:
                    continue
                if not tensor.is_nested and tensor.shape != copy.shape:  # the first batch gave a buffer its size
                    tensor.resize_(copy.shape)
                tensor.copy_(copy)
            restore_frozen(frozen for frozen in self._frozen if id(frozen.tensor) not in others)


class RewindPoint:
    """A copy of a training state, brought back without its random numbers.

    Whoever draws data from the process's generators goes on with other data, too, not with the draws that led into
    trouble.
    """

    def __init__(self, copy: Restorable) -> None:
        self._copy = copy

    def restore(self) -> None:
        """Bring the state back, and leave all generators where they are."""
        with random_numbers_kept():
            self._copy.restore()


def _can_be_written(tensor: Tensor) -> bool:
    """Whether `tensor` can change in place: not one of inference mode, nor one whose elements share memory."""
    has_strides = tensor.layout is torch.strided and not tensor.is_nested
    expanded = has_strides and any(
        stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )
    return not (expanded or tensor.is_inference())
