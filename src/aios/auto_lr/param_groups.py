"""Learning rates of param groups that are told something of their own: the settings of a role, and where its rate goes.

A role is what a param group is for: its `role` entry, else its `name`, else `base`. The scheduler decides for base;
every other role follows. A role that is told nothing keeps its ratio to base to the last bit.

Invariant: LR of a role = LR of base x (the role's `initial_lr` / that of the first group) x `scale`. All that is
learned about a role is its scale, so warm-up and anneal act on every role alike. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, LRDecision, adjust
from aios.auto_lr.ranges import Range, check_numbers

BASE = "base"
"""Role of what says no other."""
SCALE = "lr_scale"
"""Entry of a param group that holds the scale of its role; absent: 1."""

WRITTEN = "lr_written"
"""Entry of a param group whose `initial_lr` was put there by us: the rate that we wrote last."""

ParamGroups = Sequence[Mapping[str, Any]]

_SAME = 1e-6
"""Relative difference up to which two rates are one: a rate may be an fp32 tensor."""
_FACTORS = {
    LRDecision.INCREASE: "increase_factor",
    LRDecision.DECREASE: "decrease_factor",
    LRDecision.SPIKE_DECREASE: "spike_factor",
}
_RANGES: dict[str, Range] = {
    **dict.fromkeys(("lr_ratio", "lr_min", "lr_max"), Range(0, low_open=True)),
    "increase_factor": Range(1),
    **dict.fromkeys(("decrease_factor", "spike_factor"), Range(0, 1, low_open=True)),
    "caution": Range(0, 1),
}


@dataclass(frozen=True)
class GroupSettings:
    """What one role is told; None means "as base". A bad value raises ValueError naming field, value and range."""

    lr_ratio: float | None = None
    """Learning rate at the start, as a multiple of base's. None: as the param groups were built, in the trainer 1."""
    lr_min: float | None = None
    """Lower bound of the role's learning rate. None: base's lower bound x the ratio at the start."""
    lr_max: float | None = None
    """Upper bound of the role's learning rate. None: base's upper bound x the ratio at the start."""
    increase_factor: float | None = None
    """Multiplier of an increase. None: whatever base is multiplied by."""
    decrease_factor: float | None = None
    """Multiplier of a decrease. None: whatever base is multiplied by."""
    spike_factor: float | None = None
    """Multiplier of the emergency brake. None: whatever base is multiplied by."""
    caution: float | None = None
    """Part of every increase that the role leaves out: 0 rises in full (as None does), 1 never rises."""

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        if self.lr_min is not None and self.lr_max is not None and self.lr_min > self.lr_max:
            raise ValueError(f"lr_min = {self.lr_min!r} is not allowed: must be <= lr_max = {self.lr_max!r}")

    @property
    def said(self) -> dict[str, float]:
        """The fields that are not None; empty: the role follows base."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Role:
    """A role with settings of its own; all its methods are pure."""

    settings: GroupSettings
    """What it is told."""
    unit: float
    """`initial_lr` of its first param group over that of the optimizer's first one."""
    limits: AdaptiveLRConfig
    """Base's settings with the role's own bounds and factors in their places."""

    @classmethod
    def beside(cls, base: AdaptiveLRConfig, settings: GroupSettings, unit: float) -> Role:
        """The role beside a base with these settings; a bound taken from base gives way to one that is set."""
        start = _start_scale(settings, unit)
        low, high = base.lr_min * unit * start, base.lr_max * unit * start
        if settings.lr_min is not None:
            low, high = settings.lr_min, max(high, settings.lr_min)
        if settings.lr_max is not None:
            low, high = min(low, settings.lr_max), settings.lr_max
        factors: dict[str, Any] = {name: settings.said[name] for name in _FACTORS.values() if name in settings.said}
        return cls(settings, unit, replace(base, lr_min=low, lr_max=high, **factors))

    @property
    def start_scale(self) -> float:
        """Its scale before anything is learned, bounds aside."""
        return _start_scale(self.settings, self.unit)

    def lr(self, base_lr: float, scale: float) -> float:
        """Its learning rate while base has `base_lr`."""
        return base_lr * self.unit * scale

    def in_bounds(self, base_lr: float, scale: float) -> float:
        """`scale`, or the nearest one at which the role's learning rate is within its bounds."""
        lr = self.lr(base_lr, scale)
        return scale if self.limits.clamp(lr) == lr else self.scale_of(lr, base_lr)

    def scale_of(self, lr: float, base_lr: float) -> float:
        """The scale that gives the role `lr`, moved to the nearest bound if outside them."""
        scale = self.limits.clamp(lr) / (base_lr * self.unit)
        while self.lr(base_lr, scale) > self.limits.lr_max:  # because of rounding; one or two steps at most
            scale = math.nextafter(scale, 0.0)
        while self.lr(base_lr, scale) < self.limits.lr_min:
            scale = math.nextafter(scale, math.inf)
        return scale

    def follow(self, decision: LRDecision, old_base: float, new_base: float, scale: float) -> float:
        """Its scale after `decision` (not HOLD) took base from `old_base` to `new_base`.

        With a factor of its own the role goes by that, under base's limit on one change; without, it takes part in
        what base did. A bound once reached is where it goes on from: the next decrease acts at once.
        """
        old, wanted = self.lr(old_base, scale), self.lr(new_base, scale)
        if _FACTORS[decision] in self.settings.said:
            wanted = adjust(old, decision, self.limits)
        if decision is LRDecision.INCREASE and self.settings.caution:
            wanted = old + (1 - self.settings.caution) * (wanted - old)
        if wanted == self.lr(new_base, scale):
            return self.in_bounds(new_base, scale)
        return self.scale_of(wanted, new_base)


def role_of(group: Mapping[str, Any]) -> str:
    """What a param group is for: its `role`, else its `name`, else base."""
    return str(group.get("role") or group.get("name") or BASE)


def make_roles(groups: ParamGroups, settings: Mapping[str, GroupSettings], base: AdaptiveLRConfig) -> dict[str, Role]:
    """The roles that are told something, by name.

    Raises ValueError for a role that no param group has, that has a learning rate of 0, or for base, whose settings
    are those of the scheduler.
    """
    return {name: Role.beside(base, own, _unit(groups, name)) for name, own in settings.items() if own.said}


def start_scales(groups: ParamGroups, settings: Mapping[str, GroupSettings]) -> dict[str, float]:
    """Scale of each role that is told something, before there is a scheduler: what a search runs with.

    Raises ValueError for a first rate that no other can keep a ratio to, and as `make_roles` does.
    """
    if groups and not 0 < (first := initial_rate(groups[0])) < math.inf:
        raise ValueError(
            f"the learning rate of the first param group is {first!r}: must be above 0, for others keep a ratio to it"
        )
    return {name: _start_scale(own, _unit(groups, name)) for name, own in settings.items() if own.said}


def take_new_rates(groups: Sequence[dict[str, Any]]) -> list[tuple[dict[str, Any], float]]:
    """Have a rate that somebody has set since our last one take the place of the `initial_lr` that we left.

    One that others put there, such as torch's schedulers, stays. Returns the groups in question with what we had left.
    """
    left = []
    for group in groups:
        if WRITTEN in group and not math.isclose(float(group["lr"]), group[WRITTEN], rel_tol=_SAME):
            left.append((group, group.pop("initial_lr")))
    return left


def begin_groups(groups: Sequence[dict[str, Any]], scales: Mapping[str, float]) -> None:
    """Write into param groups what a search runs with: each one's base rate, and the `scales` of roles."""
    for group in groups:
        _set_base(group)
    write_scales(groups, scales)


def _set_base(group: dict[str, Any]) -> None:
    """Write its base rate into a group, and whether it is us who put it there."""
    # As a number, because a tensor LR is changed in place later (torch's schedulers put a tensor there).
    base, ours = initial_rate(group), "initial_lr" not in group
    group["initial_lr"] = base
    if ours:
        group[WRITTEN] = base


def write_scales(groups: Sequence[dict[str, Any]], scales: Mapping[str, float]) -> None:
    """Put each role's scale into its param groups."""
    for group in groups:
        scale = scales.get(role_of(group))
        if scale is not None:
            group[SCALE] = scale


def _start_scale(settings: GroupSettings, unit: float) -> float:
    return 1.0 if settings.lr_ratio is None else settings.lr_ratio / unit


def _unit(groups: ParamGroups, name: str) -> float:
    if name == BASE:
        raise ValueError("groups: 'base' is not allowed: its settings are those of the scheduler itself")
    bases = [initial_rate(group) for group in groups if role_of(group) == name]
    if not bases:
        there = ", ".join(dict.fromkeys(role_of(group) for group in groups))
        raise ValueError(f"groups: {name!r} is not allowed: no param group has that role (roles: {there})")
    if not bases[0] > 0:
        raise ValueError(f"groups: the learning rate of {name!r} is {bases[0]!r}: must be > 0")
    return bases[0] / initial_rate(groups[0])


def initial_rate(group: Mapping[str, Any]) -> float:
    """The rate that a param group was given first: its `initial_lr`, or its LR where it has none yet. Waits for the
    device where that is a tensor there. ValueError where it has none at all, or its optimizer heeds none."""
    rate = group.get("initial_lr", group["lr"])
    if rate is None or group.get("relative_step"):  # a schedule may have written one beside Adafactor's own
        raise ValueError(
            "the optimizer was built without a learning rate, to set its own: give it one (transformers' Adafactor: "
            "relative_step=False, lr=1e-3)"
        )
    return float(rate)


def as_several(optimizers: Any) -> list[Any]:
    """One optimizer, or a sequence of them, as a list; ValueError for anything that has no param groups."""
    several = list(optimizers) if isinstance(optimizers, Sequence) else [optimizers]
    for one in several:
        if not hasattr(one, "param_groups"):
            raise ValueError(
                f"optimizers: a {type(one).__name__} is not allowed: must be an optimizer or a list of them, of a dict "
                "list(optimizers.values())"
            )
    return several


class JoinedGroups:
    """The param groups of several optimizers as those of one, in order: what the scheduler drives.

    The first group's rate is the master; every other group keeps its ratio to it. A group added to an optimizer later
    is there at once.
    """

    def __init__(self, optimizers: Sequence[Any]) -> None:
        self._optimizers = tuple(optimizers)
        self._known = self._counts()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all optimizers."""
        if len(self._optimizers) == 1:
            groups: list[dict[str, Any]] = self._optimizers[0].param_groups
            return groups
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def joined(self) -> dict[int, float]:
        """The places, among all, of the groups that were added since this was last asked, and their ratios to the
        first: those of their rates."""
        before, self._known = self._known, self._counts()
        starts, groups = [sum(self._known[:i]) for i in range(len(before))], self.param_groups
        counts = zip(starts, before, self._known, strict=True)
        places = [start + place for start, known, now in counts for place in range(known, now)]
        ratios = (initial_rate(groups[place]) / initial_rate(groups[0]) for place in places)
        return {place: r * groups[place].get(SCALE, 1.0) for place, r in zip(places, ratios, strict=True)}

    def _counts(self) -> list[int]:
        """How many groups each optimizer has."""
        return [len(optimizer.param_groups) for optimizer in self._optimizers]


def set_learning_rate(groups: Sequence[dict[str, Any]], lr: float) -> list[float]:
    """Give base `lr` and every group its ratio to the first (that of their `initial_lr`) times its role's scale.

    Returns the rate of each group.
    """
    for group in groups:
        if "initial_lr" not in group:  # it was added on the way
            _set_base(group)
    first = groups[0]["initial_lr"]
    rates = [lr * (group["initial_lr"] / first) * group.get(SCALE, 1.0) for group in groups]
    for group, rate in zip(groups, rates, strict=True):
        write_learning_rate(group, rate)
    return rates


def write_learning_rate(group: dict[str, Any], rate: float) -> None:
    """Set the LR of one param group; a tensor LR stays the same tensor, because capturable optimizers hold on to it."""
    if hasattr(group["lr"], "fill_"):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
    if WRITTEN in group:
        group[WRITTEN] = rate


class WrittenRates:
    """The rates that param groups were given last, to see whether somebody else has written others since."""

    def __init__(self) -> None:
        self._written: list[tuple[dict[str, Any], float]] = []

    def write(self, groups: Sequence[dict[str, Any]], lr: float) -> list[float]:
        """As `set_learning_rate`, and remember it."""
        rates = set_learning_rate(groups, lr)
        self._written = list(zip(groups, rates, strict=True))
        return rates

    def foreign(self) -> list[tuple[float, Mapping[str, Any], float]]:
        """The rate there is, its group and the rate given, where they differ. A tensor LR is not read."""
        there = [(group["lr"], group, rate) for group, rate in self._written]
        return [(lr, group, rate) for lr, group, rate in there if isinstance(lr, float) and lr != rate]


def read_learning_rates(groups: ParamGroups) -> list[float]:
    """The LR in force of each group; waits for the device where it is a tensor there."""
    return [float(group["lr"]) for group in groups]
