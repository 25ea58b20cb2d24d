"""What callers hand to `AutoLR`, checked before anything is done with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from aios.auto_lr.saved_state import LARGEST
from aios.errors import shown


def whole_steps(steps: Any) -> int:
    """`steps` as an int; ValueError, naming the value, unless it is a whole number from 1 to 2^53 of any type."""
    is_number = isinstance(steps, Real) and not isinstance(steps, bool)
    if not (is_number and 1 <= steps <= LARGEST and steps == int(steps)):
        raise ValueError(f"steps = {shown(steps)} is not allowed: must be a whole number from 1 to 2^53")
    return int(steps)


def check_trains(model: nn.Module, groups: Iterable[Mapping[str, Any]]) -> None:
    """Raise ValueError unless the param `groups` hold a parameter of `model` that learns."""
    own = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    if not any(id(parameter) in own for group in groups for parameter in group["params"]):
        raise ValueError(
            "the optimizer trains no parameter of the model: build it from model.parameters(), and leave "
            "requires_grad on where the model is to learn"
        )


def check_apart(model: nn.Module, optimizers: Iterable[Any]) -> None:
    """Raise ValueError, naming it, for a weight that two of the `optimizers` hold, or one that is listed twice."""
    names, held = {id(weight): name for name, weight in model.named_parameters()}, set[int]()
    for optimizer in optimizers:
        own = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        if shared := own & held:
            name = next((names[weight] for weight in names if weight in shared), "a weight outside the model")
            raise ValueError(
                f"two optimizers hold {name}, which each step would update twice: hand each optimizer over once, and "
                "give each weight to one of them"
            )
        held |= own


def check_gradients(weights: Iterable[Tensor]) -> None:
    """Raise ValueError where none of the `weights` has a gradient."""
    if all(weight.grad is None for weight in weights):
        raise ValueError(
            "no weight has a gradient: call loss.backward() before step, and leave optimizer.step() and "
            "optimizer.zero_grad() to it"
        )


def check_whole(model: nn.Module) -> None:
    """Raise ValueError for a model whose weights are shared out among workers, as FSDP does."""
    if any(hasattr(parameter, "device_mesh") for parameter in model.parameters()):  # a DTensor, slow to import
        raise ValueError(shared_out("FSDP, tensor parallelism"))


def shared_out(by: str) -> str:
    """Why a model cannot be steered whose weights each worker has a part of, `by` some strategy."""
    return (
        f"the weights of the model are shared out among workers ({by}), where nobody can copy them to go back: use "
        "DistributedDataParallel, or a schedule of your own"
    )


_SHARING = ("FSDP", "DeepSpeed", "ModelParallel")
"""In the names of Lightning's strategies that share out the weights."""


def inside(optimizer: Any, scaler: torch.amp.GradScaler | None) -> Any:
    """The optimizer that Lightning Fabric's wrapper holds; any other as it is.

    The wrapper holds the strategy, too, which no copy can bring back. Raises ValueError for one that shares out the
    weights, and for one that scales the loss by another `scaler`.
    """
    if not any(base.__name__ == "_FabricOptimizer" for base in type(optimizer).__mro__):
        return optimizer
    strategy = optimizer._strategy
    if any(name in type(strategy).__name__ for name in _SHARING):
        raise ValueError(shared_out(type(strategy).__name__))
    scales = getattr(strategy.precision, "scaler", None)
    if scales is not None and scales is not scaler:
        raise ValueError(
            "Fabric scales the loss: hand its scaler on, AutoLR(..., scaler=fabric.strategy.precision.scaler)"
        )
    return optimizer.optimizer


def check_steerable(optimizers: Iterable[Any]) -> None:
    """Raise ValueError for an optimizer that a learning rate and a falling loss cannot steer.

    Refused: a `step` that needs a closure, an optimizer that reads its rate only once, and `maximize`.
    """
    for optimizer in optimizers:
        if isinstance(optimizer, torch.optim.Rprop):
            raise ValueError("Rprop cannot be steered: its learning rate counts in the first step alone")
        if any(group.get("maximize") for group in optimizer.param_groups):
            raise ValueError(
                "maximize=True is not allowed: AutoLR follows a loss that falls; train on the negative of it"
            )
        step = getattr(type(optimizer), "step", None)  # not the instance's, which schedulers wrap
        asked = list(inspect.signature(step).parameters.values())[1:] if callable(step) else []
        if any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in asked):
            raise ValueError(
                f"{type(optimizer).__name__} cannot be steered: its step needs a closure; take an optimizer that steps "
                "by the gradients that are there"
            )


_OWN_STEP_SIZE = ("d_coef", "growth_rate", "numerator_weighted")
"""Entries of a param group beside `d`, the step size that Prodigy or an optimizer of D-Adaptation has found so far."""


def check_no_own_step_size(optimizers: Iterable[Any]) -> None:
    """Raise ValueError for an optimizer that multiplies the rate by a step size that it finds itself, as it goes: a
    rate found while that is small is far too high later."""
    for optimizer in optimizers:
        if any("d" in group and any(name in group for name in _OWN_STEP_SIZE) for group in optimizer.param_groups):
            raise ValueError(
                f"{type(optimizer).__name__} cannot be steered: it finds its own step size; take "
                'AutoLRConfig(profile="fixed"), which leaves the rate as it is, or another optimizer'
            )


def number_on(device: torch.device, value: Any, name: str) -> Tensor:
    """`value` as a scalar on `device`, detached; ValueError, saying `name` and value, unless it is one real number."""
    if isinstance(value, Tensor):
        if value.numel() == 1 and value.is_floating_point():
            return value.detach().reshape(()).to(device)
        what = f"a {value.dtype} tensor of shape {tuple(value.shape)}"
        raise ValueError(f"{name} = {what} is not allowed: must be one number, such as the mean over the batch")
    too_large = isinstance(value, int) and abs(value) > LARGEST
    if isinstance(value, Real) and not isinstance(value, bool) and not too_large:
        as_fp32 = float(torch.tensor(float(value)))  # infinite where it is too large
        return torch.full((), as_fp32, device=device)  # no copy from the host, which would wait for the device
    raise ValueError(f"{name} = {shown(value)} is not allowed: must be a number, or a tensor that holds one")


def vector_on(device: torch.device, named: Mapping[str, Any], others: Tensor | None) -> Tensor:
    """The numbers `named` and those of the vector `others` as one fp32 vector; ValueError as `number_on`."""
    first = torch.stack([number_on(device, value, name).float() for name, value in named.items()])
    return first if others is None else torch.cat([first, others.float()])
