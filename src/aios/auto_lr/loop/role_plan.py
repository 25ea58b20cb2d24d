"""The rate that each part of a model is to train at beside the rest.

A recurrent weight acts many times over, once for each element of a sequence or each cycle, and so does every update of
it: it wants a lower rate than the weights around it. How much lower was measured (docs/auto_lr.md), because short
comparisons on the model itself favour too high a rate, whose harm shows late. How a part gets its rate: see
`scaled_updates`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aios.auto_lr.events import Event, disabled
from aios.auto_lr.loop.roles import RECURRENT, roles_of
from aios.auto_lr.loop.scaled_updates import at_rate, holds_copies
from aios.auto_lr.param_groups import initial_rate

MEASURED: Mapping[str, float] = {RECURRENT: 0.3}
"""What a role's rate is beside that of the rest."""
_WHY = {RECURRENT: "they act many times over, and every update of them does, too"}


@dataclass(frozen=True)
class RolePlan:
    """How the rates of a model's parts compare."""

    factors: Mapping[str, float]
    """Of each role that trains at another rate than the rest, as a multiple of that; empty: one rate for all."""
    one_rate: float = 1.0
    """Factor on the rate when all weights must share one: that of the part that bears least."""
    usual: float = 1.0
    """The rate of the rest over that of the first param group. Weights in a group with another are left at that."""
    obstacle: str | None = None
    """Why there are no `factors` although a part of the model wants another rate, in plain words."""


def check_factors(model: nn.Module, own: Mapping[str, float]) -> None:
    """Raise ValueError for a role in `own` that no weight has."""
    there = sorted(set(roles_of(model).values())) if own else []
    if unknown := [role for role in own if role not in there]:
        raise ValueError(
            f"role_factors: {unknown[0]!r} is not allowed: no weight has that role (roles: {', '.join(there)})"
        )


def plan_roles(
    model: nn.Module, optimizers: Sequence[Any], factors: Mapping[str, float], wanted: bool = True
) -> RolePlan:
    """The plan that gives each role its factor, as far as it is trained; where none is `wanted`, one rate for all."""
    roles = roles_of(model)
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    asked = {name: weight for name, weight in learning.items() if factors.get(roles[name], 1.0) != 1.0}
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    held = {id(weight) for group in groups for weight in group["params"]}
    elsewhere = not any(id(weight) in held for weight in learning.values())
    if not asked or not (elsewhere or any(id(weight) in held for weight in asked.values())):
        return RolePlan({})
    rate = _usual_rate(groups, {id(weight) for name, weight in learning.items() if name not in asked})
    usual = {id(weight) for optimizer in optimizers for weight in at_rate(rate, optimizer)}
    factor_of = {
        name: factors.get(roles[name], 1.0) for name, weight in learning.items() if elsewhere or id(weight) in usual
    }
    one_rate, ratio = min([1.0, *factor_of.values()]), rate / initial_rate(groups[0])
    if not wanted or set(factor_of.values()) == {one_rate} != {1.0}:
        return RolePlan({}, one_rate, ratio)
    own = {name: weight for name, weight in asked.items() if id(weight) in usual}
    obstacle = _obstacle(elsewhere, list(own.values()), optimizers)
    given = {} if obstacle else {role: factors[role] for role in sorted({roles[name] for name in own})}
    return RolePlan(given, one_rate, ratio, obstacle)


def _usual_rate(groups: Sequence[Mapping[str, Any]], rest: Set[int]) -> float:
    """The initial rate at which most weights of the `rest`, by number, are trained; that of the first group if none."""
    numbers = {initial_rate(groups[0]): 0}
    for group in groups:
        rate = initial_rate(group)
        numbers[rate] = numbers.get(rate, 0) + sum(weight.numel() for weight in group["params"] if id(weight) in rest)
    return max(numbers, key=lambda rate: numbers[rate])


def _obstacle(elsewhere: bool, own: Sequence[Tensor], optimizers: Sequence[Any]) -> str | None:
    """Why the updates of the weights `own` cannot be scaled by themselves; None where they can."""
    if elsewhere:
        return "the optimizer does not hold the weights as the model does"
    if not own:
        return "the optimizer has a rate of its own for that part"
    for optimizer in optimizers:
        name = type(optimizer).__name__
        if not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "eval"):
            # Schedule-Free, which has train and eval modes, steps from copies of the weights.
            return f"{name} is no optimizer whose updates can be scaled"
        if holds_copies(optimizer, max(own, key=Tensor.numel)):
            return f"{name} keeps copies of the weights, and goes on from those"
    return None


def kept_events(factors: Mapping[str, float], step: int) -> Iterator[Event]:
    """An event, at optimizer step `step`, for each role whose factor stays what it was when the run began."""
    why = "a run goes on with the rates of its parts that it began with, whatever the settings say now"
    for role, factor in factors.items():
        yield _role_rate(step, role, factor, "saved", why)


def role_events(plan: RolePlan, step: int) -> Iterator[Event]:
    """An event, at optimizer step `step`, for each role that trains at another rate, or for why none does."""
    for role, factor in plan.factors.items():
        measured = MEASURED.get(role) == factor
        evidence, why = ("measured", _WHY[role]) if measured else ("settings", "the settings say so")
        yield _role_rate(step, role, factor, evidence, why)
    if plan.obstacle is not None:
        yield disabled(step, plan.obstacle, "rate for each role")


def _role_rate(step: int, role: str, factor: float, evidence: str, reason: str) -> Event:
    """A role trains at `factor` times the rate of the rest."""
    fields = {"role": role, "factor": factor, "evidence": evidence, "reason": reason}
    return {"event": "adaptive_lr_roles", "step": step, **fields}
