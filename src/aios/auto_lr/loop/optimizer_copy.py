"""A copy of everything an optimizer keeps: torch's own state, and what wrappers and subclasses keep beside it.

A wrapper with weights of its own (Lookahead, an average, a projection) would go on from those of the future after a
restore that only knows `state` and `param_groups`. So each attribute is copied; what cannot be copied is refused.
What belongs to others is left to them: the model's weights, and managers that all optimizers of a process share.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Callable
from copy import deepcopy
from enum import Enum
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

Back = Callable[[], Any]
"""Brings a value back to what it was, and returns it."""

_PLAIN = (int, float, complex, str, bytes, type(None), Enum, torch.dtype, torch.device, torch.Size)
_CODE = (type, types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType)


class OptimizerCopy:
    """State, param groups and all further attributes of one optimizer; `restore` brings them back in place.

    `kept` are ids of tensors that somebody else brings back: the model's. Raises ValueError, naming the attribute,
    for state that cannot be copied.
    """

    def __init__(self, optimizer: Any, kept: frozenset[int] = frozenset()) -> None:
        self._optimizer = optimizer
        state = getattr(optimizer, "state", {})
        self._state = {param: copy_value(own) for param, own in state.items()}
        self._groups = [
            {k: (v, copy_value(v)) for k, v in group.items() if k != "params"} for group in optimizer.param_groups
        ]
        name = type(optimizer).__name__
        own = {k: v for k, v in vars(optimizer).items() if k not in _torch_own()}
        self._attributes = {k: _keep(v, f"{name}.{k}", kept, {id(optimizer)}) for k, v in own.items()}

    @property
    def bytes(self) -> int:
        """Memory the copies of `state` take."""
        kept = (own for own in self._state.values() if isinstance(own, dict))
        tensors = (v for own in kept for v in own.values() if isinstance(v, Tensor))
        return sum(tensor.nbytes for tensor in tensors)

    def restore(self) -> None:
        """Bring the optimizer back and clear its gradients; can be called again and again.

        The weights are back before. An optimizer with modes stays in that of now, whatever it was copied in.
        """
        optimizer = self._optimizer
        trains = _trains(optimizer)
        for name, back in self._attributes.items():
            vars(optimizer)[name] = back()
        state = getattr(optimizer, "state", {})
        in_use = dict(state)
        state.clear()
        for key, own in self._state.items():  # of a parameter a dict; a wrapper may keep anything besides
            state[key] = _brought_back(in_use.get(key), own)
        for group, saved in zip(optimizer.param_groups, self._groups, strict=False):  # others were added since
            group.update({name: _brought_back(value, copy) for name, (value, copy) in saved.items()})
        if trains is not _trains(optimizer):
            (optimizer.train if trains else optimizer.eval)()
        optimizer.zero_grad(set_to_none=True)


def _trains(optimizer: Any) -> bool | None:
    """Whether an optimizer with modes, as Schedule-Free's, is in train mode; in the other it keeps averages in the
    weights' place. None for all others."""
    first: dict[str, Any] = next(iter(optimizer.param_groups), {})
    mode: bool | None = first.get("train_mode", getattr(optimizer, "train_mode", None))
    return mode


@cache
def _torch_own() -> frozenset[str]:
    """Attributes that every torch optimizer has: state and groups, copied for themselves, the others are hooks."""
    return frozenset(vars(torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)))


def copy_value(value: Any) -> Any:
    """A copy that shares no memory; most optimizers keep numbers, tensors, and dicts or lists of them."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if type(value) is dict:
        return {k: copy_value(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(copy_value(v) for v in value)
    return value if isinstance(value, (*_PLAIN, *_CODE)) else deepcopy(value)


def _brought_back(in_use: Any, copy: Any) -> Any:
    """The copied value, where possible in the tensor in use: captured graphs hold on to a tensor LR, and to moments."""
    if type(copy) is dict:
        there = in_use if isinstance(in_use, dict) else {}
        return {name: _brought_back(there.get(name), own) for name, own in copy.items()}
    both = isinstance(in_use, Tensor) and isinstance(copy, Tensor)
    if not both or (in_use.shape, in_use.dtype, in_use.device) != (copy.shape, copy.dtype, copy.device):
        return copy_value(copy)
    in_use.detach().copy_(copy)
    return in_use


def _keep(value: Any, place: str, kept: frozenset[int], seen: set[int]) -> Back:
    """What brings `value`, found at `place`, back; `seen` are objects on the way to it."""
    if isinstance(value, (*_PLAIN, *_CODE)) or id(value) in kept or id(value) in seen or _is_of_others(value, kept):
        return lambda: value
    seen = seen | {id(value)}
    if isinstance(value, Tensor):
        return _keep_tensor(value)
    if isinstance(value, torch.optim.Optimizer):
        return _then(OptimizerCopy(value, kept).restore, value)
    if isinstance(value, dict):
        return _keep_dict(value, place, kept, seen)
    if isinstance(value, (list, deque)):
        items = [_keep(v, f"{place}[{i}]", kept, seen) for i, v in enumerate(value)]
        return lambda: _refill(value, items)
    if isinstance(value, tuple):
        items = [_keep(v, f"{place}[{i}]", kept, seen) for i, v in enumerate(value)]
        return _then(lambda: [item() for item in items], value)
    if isinstance(value, (set, frozenset)):
        for i, v in enumerate(value):
            _only_constants(v, f"{place}[{i}]", kept)
        unchanged = value.copy() if isinstance(value, set) else value
        return lambda: unchanged
    return _keep_object(value, place, kept, seen)


def _is_of_others(value: Any, kept: frozenset[int]) -> bool:
    """Whether somebody else answers for `value`: a module of `kept` tensors, or an object that its own class holds.

    Such a manager has to do with other models, too: bitsandbytes' one knows the embeddings of all in the process.
    """
    if isinstance(value, nn.Module):
        tensors = [*value.parameters(), *value.buffers()]
        return bool(tensors) and all(id(tensor) in kept for tensor in tensors)
    return any(value is held for own in type(value).__mro__ for held in vars(own).values())


def _then(restore: Callable[[], object], value: Any) -> Back:
    """Restore what `value` holds, and give it back."""

    def back() -> Any:
        restore()
        return value

    return back


def _keep_tensor(value: Tensor) -> Back:
    copy = value.detach().clone()

    def back() -> Tensor:
        with torch.no_grad():
            value.copy_(copy)
        return value

    return back


def _keep_dict(value: dict[Any, Any], place: str, kept: frozenset[int], seen: set[int]) -> Back:
    items = {k: _keep(v, f"{place}[{k!r:.40}]", kept, seen) for k, v in value.items()}

    def back() -> dict[Any, Any]:
        fresh = {k: item() for k, item in items.items()}
        value.clear()
        value.update(fresh)
        return value

    return back


def _refill(value: Any, items: list[Back]) -> Any:
    fresh = [item() for item in items]
    value.clear()
    value.extend(fresh)
    return value


def _only_constants(value: Any, place: str, kept: frozenset[int]) -> None:
    if not (isinstance(value, (*_PLAIN, *_CODE)) or id(value) in kept):
        raise _cannot_copy(value, place)


def _keep_object(value: Any, place: str, kept: frozenset[int], seen: set[int]) -> Back:
    if hasattr(value, "state_dict") and hasattr(value, "load_state_dict"):
        saved = deepcopy(value.state_dict())
        return _then(lambda: value.load_state_dict(deepcopy(saved)), value)
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if not hasattr(value, "__dict__"):
        raise _cannot_copy(value, place)
    return _then(_keep_dict(vars(value), place, kept, seen), value)


def _cannot_copy(value: Any, place: str) -> ValueError:
    return ValueError(
        f"{place} (a {type(value).__name__}) cannot be copied, so the search and a rewind could not bring it back; "
        "give it state_dict and load_state_dict, or hand AutoLR the optimizer inside"
    )
