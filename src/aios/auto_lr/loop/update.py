"""The optimizers' update: clipping, and the skip of an update that would do harm."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from aios.auto_lr.loop.weights import held_by


def check_dense(model: nn.Module) -> None:
    """Raises ValueError, naming the parameter, for a sparse gradient: torch cannot take its norm."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.is_sparse:
            raise ValueError(
                f"the gradient of {name} is sparse and cannot be clipped; build its layer with sparse=False"
            )


def must_skip(loss: Tensor, grad_norm: Tensor, skip_above: float) -> Tensor:
    """Whether an update has to be left out, a boolean scalar on the device.

    So it is when the loss or the norm of the gradient is not finite (an overflow under loss scaling makes it so), or
    the norm exceeds `skip_above`. The loss says where: the norm is where the first gradient is, in a model on several
    devices another place.
    """
    grad_norm = grad_norm.to(loss.device)
    return ~(torch.isfinite(grad_norm) & torch.isfinite(loss.detach()) & (grad_norm <= skip_above))


def clip_and_update(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    loss: Tensor,
    max_grad_norm: float,
    skip_above: float = math.inf,
) -> Tensor:
    """Clip, update and clear the gradients; returns the norm before clipping, a scalar on the device.

    Those of weights that the optimizers do not hold belong to somebody else: they are neither counted nor cleared. An
    update that `must_skip` is left out by all optimizers: weights and moments stay as they were. Fused optimizers read
    that on the device, so the host never waits for it; for others it is read back. The loss scale follows the overflows
    that `scaler` finds itself and nothing else: an update skipped for a reason of ours counts as one with finite
    gradients. Where an error or an interruption ends it, gradients and what the scaler knows of them are gone, and the
    batch can be trained on again.

    Raises ValueError where the scaler was used on these gradients before.
    """
    try:
        _unscale(optimizers, scaler)
        grad_norm = nn.utils.clip_grad_norm_(held_by(optimizers, model), max_grad_norm)
        skip = must_skip(loss, grad_norm, skip_above)
        for optimizer in optimizers:
            _step_unless(skip, optimizer)
        if scaler.is_enabled():
            scaler.update()
    except BaseException:  # an interruption, too: the caller may go on
        _forget(optimizers, scaler)
        raise
    finally:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
    return grad_norm


def _unscale(optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler) -> None:
    for optimizer in optimizers:
        try:
            scaler.unscale_(optimizer)
        except RuntimeError as error:
            if "unscale_()" not in str(error):
                raise
            raise ValueError(
                "the scaler has unscaled these gradients, or stepped, already: leave scaler.unscale_, scaler.step and "
                "scaler.update to AutoLR's step, which clips, too"
            ) from error


def _forget(optimizers: Sequence[torch.optim.Optimizer], scaler: torch.amp.GradScaler) -> None:
    """Have the scaler, whose scale stays, begin anew: else it takes the next gradients for unscaled ones."""
    if scaler.is_enabled():
        for optimizer in optimizers:
            scaler._per_optimizer_states.pop(id(optimizer), None)


def _step_unless(skip: Tensor, optimizer: torch.optim.Optimizer) -> None:
    if _skips_on_device(optimizer):
        set_skip(optimizer, skip)
        try:
            optimizer.step()  # not through the scaler, which would set a flag of its own
        finally:
            clear_skip(optimizer)
    elif not bool(skip):
        optimizer.step()


def set_skip(optimizer: torch.optim.Optimizer, skip: Tensor) -> None:
    """Tell a fused optimizer whether to leave everything as it is in its next steps, until `clear_skip`.

    `skip` is a boolean scalar: the kernels skip on exactly 1, any other number of them is an update.
    """
    optimizer.found_inf = skip.float()  # type: ignore[attr-defined]


def clear_skip(optimizer: torch.optim.Optimizer) -> None:
    """Let the steps that others ask for train again: a trial's, or the caller's own."""
    del optimizer.found_inf  # type: ignore[attr-defined]


class UpdateGuard:
    """Leaves out updates of an optimizer whose `step` a framework calls, through `scaler` where it has one.

    Call `leave_out` with what `must_skip` said, once the gradients are there and before the framework's step, and
    `done` after it. A fused optimizer reads the flag on the device; for any other the gradients are dropped, which
    waits for the device. The loss scale follows overflows alone, as in `clip_and_update`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler | None = None) -> None:
        self._optimizer = optimizer
        self._scaled = scaler is not None and scaler.is_enabled()
        self._skip: Tensor | None = None
        self._hooks = [optimizer.register_step_pre_hook(lambda *_: self._join())] if self._scaled else []

    def leave_out(self, skip: Tensor) -> None:
        """Leave the next step out where `skip`, a boolean scalar on the device, is true."""
        if not _skips_on_device(self._optimizer):
            if bool(skip):
                self._optimizer.zero_grad(set_to_none=True)
            return
        self._skip = skip
        if not self._scaled:
            set_skip(self._optimizer, skip)

    def done(self) -> None:
        """The step is over: the next one trains again."""
        if self._skip is not None and not self._scaled:
            clear_skip(self._optimizer)
        self._skip = None

    def release(self) -> None:
        """Let go of the optimizer, in the middle of a step, too."""
        self.done()
        for hook in self._hooks:
            hook.remove()

    def _join(self) -> None:
        """Add our answer to the flag that the scaler has just handed over, and takes away again itself."""
        if self._skip is not None:
            flag: Tensor = self._optimizer.found_inf  # type: ignore[attr-defined]
            set_skip(self._optimizer, (flag > 0) | self._skip.to(flag.device))


def reads_flags(optimizer: torch.optim.Optimizer) -> bool:
    """Whether `optimizer` reads scale and skip on the device: a fused one does. `GradScaler` goes by this name, too."""
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the next step of `optimizer` heeds `set_skip`."""
    if isinstance(optimizer, torch.optim.SGD) and not optimizer.state:
        return False  # even skipped, its first step would leave a momentum buffer that was never written
    return reads_flags(optimizer)
