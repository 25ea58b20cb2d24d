"""Parts of a model that train at a rate of their own, though the optimizer has one rate for all of it.

Nothing of an optimizer is rearranged for it: the update of a weight is cut (or stretched) in place after each of the
optimizer's steps, which is the same as another learning rate for it, whatever the optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aios.auto_lr.loop.roles import roles_of
from aios.auto_lr.param_groups import initial_rate

_SAME = 1e-5
"""Relative difference up to which two rates are one: a rate may be an fp32 tensor."""


def at_rate(wanted: float, optimizer: Any) -> list[Tensor]:
    """What `optimizer` trains at the initial rate `wanted`."""
    groups = [group for group in optimizer.param_groups if math.isclose(initial_rate(group), wanted, rel_tol=_SAME)]
    return [weight for group in groups for weight in group["params"]]


def holds_copies(optimizer: torch.optim.Optimizer, weight: Tensor) -> bool:
    """Whether the optimizer keeps its own copy of `weight`, which would undo scaling: Lookahead does, or one that has
    an fp32 weight for a bf16 one. Waits for the device."""
    trained = {id(w) for group in optimizer.param_groups for w in group["params"]}
    kept = (tensor for tensor in _tensors_in(vars(optimizer), set()) if id(tensor) not in trained)
    same = (tensor.detach().to(weight) for tensor in kept if tensor.shape == weight.shape)
    return bool(weight.any()) and any(torch.equal(tensor, weight.detach()) for tensor in same)


def _tensors_in(value: Any, seen: set[int]) -> Iterator[Tensor]:
    """All tensors in containers, and in optimizers within."""
    if id(value) in seen:
        return
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        inner = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inner = value
    elif isinstance(value, torch.optim.Optimizer):
        inner = vars(value).values()
    for part in inner:
        yield from _tensors_in(part, seen)


def scale_updates(
    model: nn.Module, optimizers: Sequence[Any], factors: Mapping[str, float], usual: float = 1.0
) -> None:
    """From now on each update of a role's weights is its factor times what the optimizer makes of it.

    That is for what is trained at `usual` times the initial rate of the first param group, weights that join an
    optimizer later included. Takes the place of what was said for these optimizers before. Raises ValueError where they
    train none of them.
    """
    if not factors:
        leave_updates(optimizers)
        return
    rate = usual * initial_rate(optimizers[0].param_groups[0])
    scalings = [_Scaling(model, optimizer, factors, rate) for optimizer in optimizers]
    if not any(scaling.parts for scaling in scalings):
        raise ValueError(
            f"no optimizer trains weights of the role {next(iter(factors))!r} as the model holds them, which this run "
            "trains at a rate of their own; go on with the model and the optimizers it was begun with"
        )
    leave_updates(optimizers)
    for scaling in scalings:
        scaling.attach()
    _attached.update({id(scaling.optimizer): scaling for scaling in scalings})


def leave_updates(optimizers: Sequence[Any]) -> None:
    """Let updates be what the optimizers make of them."""
    for optimizer in optimizers:
        scaling = _attached.pop(id(optimizer), None)
        for hook in scaling.hooks if scaling is not None else ():
            hook.remove()


def begin_updates(optimizers: Sequence[Any]) -> None:
    """The next updates begin: none is under way, whatever error may have ended the last."""
    for optimizer in optimizers:
        if (scaling := _attached.get(id(optimizer))) is not None:
            scaling.depth = 0


class _Scaling:
    """Scales the updates that one optimizer makes; nothing waits for the device.

    An update is linear in the learning rate, weight decay included, so `w <- before + factor (w - before)` is an
    update at `factor` times the rate. One that was left out stays so.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, factors: Mapping[str, float], rate: float
    ) -> None:
        self._model, self.optimizer = model, optimizer
        self._factors, self._rate = factors, rate
        self.depth = 0
        """Steps under way: what a subclass hands to its base class, `super().step()`, is a step within a step."""
        self._known = -1  # number of weights when they were last looked up
        self._before: dict[float, list[Tensor]] = {}
        self.parts: dict[float, list[Tensor]] = {}
        """The weights to scale, by factor."""
        self.hooks: list[RemovableHandle] = []
        self._part()

    def attach(self) -> None:
        """Have the optimizer call it."""
        optimizer, after = self.optimizer, self.optimizer.register_step_post_hook(self._scale)
        self.hooks = [optimizer.register_step_pre_hook(self._remember), after]
        # Before the hooks of others, which must see the final weights.
        optimizer._optimizer_step_post_hooks.move_to_end(after.id, last=False)  # type: ignore[attr-defined]

    def _part(self) -> None:
        """Look up the weights anew where the optimizer has others than before."""
        known = sum(len(group["params"]) for group in self.optimizer.param_groups)
        if known == self._known:
            return
        self._known, self.parts = known, {}
        roles, weights = roles_of(self._model), dict(self._model.named_parameters())
        factor_of = {id(weights[n]): self._factors[role] for n, role in roles.items() if role in self._factors}
        for weight in at_rate(self._rate, self.optimizer):
            if id(weight) in factor_of:
                self.parts.setdefault(factor_of[id(weight)], []).append(weight)

    def _remember(self, *_: Any) -> None:
        """Keep the weights as they are before the update."""
        self.depth += 1
        if self.depth == 1:
            self._part()
            self._before = {factor: [w.detach().clone() for w in ws] for factor, ws in self.parts.items()}

    @torch.no_grad()
    def _scale(self, *_: Any) -> None:
        """Scale what has become of them."""
        self.depth -= 1
        if self.depth == 0:
            for factor, weights in self.parts.items():
                torch._foreach_lerp_(weights, self._before[factor], 1.0 - factor)
            self._before = {}


_attached: WeakValueDictionary[int, _Scaling] = WeakValueDictionary()
"""What scales the updates of an optimizer now, by its id: a second `AutoLR` on it must not scale once more. The hooks
of the optimizer keep it alive, nothing else does."""
