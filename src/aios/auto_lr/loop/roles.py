"""What the weights of a model are for, and the rate that each part of it trains at beside the rest.

A weight that acts many times on what comes out of it, once for each element of a sequence or each cycle, does so with
every update, too: it wants a lower rate than the weights around it. How much lower was measured (docs/auto_lr.md);
short comparisons on the model itself favour the higher rate, for what it harms shows late.

Nothing of an optimizer is rearranged for it: the update of a weight is cut (or stretched) in place after each of the
optimizer's steps, which is the same as another learning rate for it, whatever the optimizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from aios.auto_lr.param_groups import ADAPTER, ROUTER, initial_rate

ATTENTION, EMBEDDING, HEAD, MLP, NORM, RECURRENT = "attention", "embedding", "head", "mlp", "norm", "recurrent"
_BY_TYPE: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Embedding, nn.EmbeddingBag), EMBEDDING),
    ((nn.RNNBase, nn.RNNCellBase), RECURRENT),
    ((nn.MultiheadAttention,), ATTENTION),
)
_BY_NAME = (
    (ROUTER, ("router",)),
    (ATTENTION, ("attn", "attention", "qkv", "q_proj", "k_proj", "v_proj", "o_proj")),
    (HEAD, ("head",)),
)
MEASURED: Mapping[str, float] = {RECURRENT: 0.3}
"""What a role's rate is beside that of the rest."""
_WHY = {RECURRENT: "they act many times over, and every update of them does, too"}
_attached: WeakKeyDictionary[torch.optim.Optimizer, list[RemovableHandle]] = WeakKeyDictionary()
"""Of each optimizer the hooks that are there now: a second `AutoLR` on it must not scale once more."""


def roles_of(model: nn.Module) -> dict[str, str]:
    """The role of each parameter, by its name.

    Told by the type of the module that holds it, by names that are usual, and by shape. An attribute `lr_role` of a
    module says it for all weights within, but for adapters and for parts that say it themselves. `norm` is any vector,
    a bias too, and `mlp` all that is nothing else.
    """
    parts = dict(model.named_modules())
    said = {path: role for path, part in parts.items() if isinstance(role := getattr(part, "lr_role", None), str)}
    return {
        name: _role(name, parameter, parts[name.rpartition(".")[0]], _innermost(said, name))
        for name, parameter in model.named_parameters()
    }


def _innermost(said: Mapping[str, str], name: str) -> str | None:
    """What the nearest part around the parameter says."""
    while name:
        name = name.rpartition(".")[0]
        if name in said:
            return said[name]
    return None


def _role(name: str, parameter: Tensor, holder: nn.Module, said: str | None) -> str:
    if "lora_" in name:
        return ADAPTER
    told = said or next((role for types, role in _BY_TYPE if isinstance(holder, types)), None)
    if told is not None:
        return told
    if parameter.ndim < 2:
        return NORM
    return next((role for role, parts in _BY_NAME if any(part in name.lower() for part in parts)), MLP)


@dataclass(frozen=True)
class RolePlan:
    """How the rates of a model's parts compare."""

    factors: Mapping[str, float]
    """Of each role that trains at another rate than the rest, as a multiple of that; empty: one rate for all."""
    one_rate: float = 1.0
    """Where one rate has to do for all, what is left of that which short runs like best: what the part that bears least
    would have."""
    obstacle: str | None = None
    """Why there are no `factors` although a part of the model wants another rate, in plain words."""


def plan_roles(model: nn.Module, optimizers: Sequence[Any], own: Mapping[str, float], wanted: bool = True) -> RolePlan:
    """The factors of the trained weights' roles: those measured, and the caller's `own` before them.

    Raises ValueError for a role in `own` that no weight has.
    """
    roles = roles_of(model)
    if unknown := [role for role in own if role not in roles.values()]:
        there = ", ".join(sorted(set(roles.values())))
        raise ValueError(f"role_factors: {unknown[0]!r} is not allowed: no weight has that role (roles: {there})")
    told = {role: float(factor) for role, factor in {**MEASURED, **own}.items()}
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    factor_of = {name: told.get(roles[name], 1.0) for name in learning}
    one_rate = min([1.0, *factor_of.values()])
    if not wanted or len(set(factor_of.values())) == 1:
        return RolePlan({}, one_rate)
    scaled = {name: learning[name] for name, factor in factor_of.items() if factor != 1.0}
    obstacle = _obstacle(list(scaled.values()), optimizers)
    factors = {} if obstacle else {role: told[role] for role in sorted({roles[name] for name in scaled})}
    return RolePlan(factors, one_rate, obstacle)


def _obstacle(weights: Sequence[Tensor], optimizers: Sequence[Any]) -> str | None:
    """Why the updates of `weights` cannot be scaled by themselves; None where they can."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    held = {id(weight) for group in groups for weight in group["params"]}
    if not any(id(weight) in held for weight in weights):
        return "the optimizer does not hold the weights as the model does"
    for optimizer in optimizers:
        if not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "eval"):
            # Schedule-Free, which has modes like a model, steps from copies of the weights.
            return f"{type(optimizer).__name__} is no optimizer whose updates can be scaled"
    usual = {id(weight) for optimizer in optimizers for weight in _at_usual_rate(optimizer, optimizers)}
    if not any(id(weight) in usual for weight in weights):
        return "the optimizer has a rate of its own for that part"
    return None


def _at_usual_rate(optimizer: torch.optim.Optimizer, optimizers: Sequence[Any]) -> list[Tensor]:
    """What `optimizer` trains at the rate of the first param group of all."""
    usual = initial_rate(optimizers[0].param_groups[0])
    return [weight for group in optimizer.param_groups if initial_rate(group) == usual for weight in group["params"]]


def scale_updates(model: nn.Module, optimizers: Sequence[Any], factors: Mapping[str, float]) -> None:
    """From now on each update of a role's weights is its factor times what the optimizer makes of it.

    Takes the place of what was said for these optimizers before. Raises ValueError where they train none of them.
    """
    leave_updates(optimizers)
    roles, weights = roles_of(model), dict(model.named_parameters())
    factor_of = {id(weights[name]): factors[role] for name, role in roles.items() if role in factors}
    for optimizer in optimizers if factor_of else ():
        parts: dict[float, list[Tensor]] = {}
        for weight in _at_usual_rate(optimizer, optimizers):
            if id(weight) in factor_of:
                parts.setdefault(factor_of[id(weight)], []).append(weight)
        if parts:
            scaling = _Scaling(parts)
            before = optimizer.register_step_pre_hook(scaling.before)
            _attached[optimizer] = [before, optimizer.register_step_post_hook(scaling.after)]
    if factors and not any(optimizer in _attached for optimizer in optimizers):
        raise ValueError(
            f"no optimizer trains weights of the role {next(iter(factors))!r} as the model holds them, which this run "
            "trains at a rate of their own; go on with the model and the optimizers it was begun with"
        )


def leave_updates(optimizers: Sequence[Any]) -> None:
    """Let updates be what the optimizers make of them."""
    for optimizer in optimizers:
        for hook in _attached.pop(optimizer, []) if isinstance(optimizer, torch.optim.Optimizer) else []:
            hook.remove()


def role_events(plan: RolePlan) -> Iterator[dict[str, Any]]:
    """An event, all but its step, for each role that trains at another rate, or for why none does."""
    for role, factor in plan.factors.items():
        measured = MEASURED.get(role) == factor
        told = {"evidence": "measured", "reason": _WHY[role]} if measured else {"evidence": "settings"}
        yield {"event": "adaptive_lr_roles", "role": role, "factor": factor, "reason": "the settings say so", **told}
    if plan.obstacle is not None:
        yield {"event": "adaptive_lr_disabled", "part": "rate for each role", "reason": plan.obstacle}


class _Scaling:
    """Scales the updates that one optimizer makes; nothing waits for the device.

    An update is linear in the learning rate, weight decay included, so `w <- before + factor (w - before)` is an
    update at `factor` times the rate. One that was left out stays so.
    """

    def __init__(self, parts: Mapping[float, list[Tensor]]) -> None:
        self._parts = parts
        self._before: dict[float, list[Tensor]] = {}

    def before(self, *_: Any) -> None:
        """Remember the weights of now."""
        self._before = {factor: [w.detach().clone() for w in weights] for factor, weights in self._parts.items()}

    @torch.no_grad()
    def after(self, *_: Any) -> None:
        """Scale what has become of them."""
        for factor, weights in self._parts.items():
            torch._foreach_lerp_(weights, self._before[factor], 1.0 - factor)
        self._before = {}
