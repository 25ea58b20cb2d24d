"""The adaptive scheduler with roles: one decision, and a learning rate for each role that is told something."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler, LRDecision
from aios.auto_lr.param_groups import GroupSettings, make_roles, role_of, set_learning_rate, write_scales
from aios.auto_lr.saved_state import RATE, by_name, check_state


class Rates(NamedTuple):
    """Every learning rate of a moment."""

    lr: float
    """Of base."""
    scales: dict[str, float]
    """Scale of each role that is told something (see `param_groups`)."""


class GroupedLRScheduler(AdaptiveLRScheduler):
    """`AdaptiveLRScheduler` whose param groups may be told something by role; without `groups` it is the same.

    `current_lr` is the learning rate of base. It announces itself at step `announced_at` where that is not the
    `start_step`. Raises ValueError for a role in `groups` that no param group has.
    """

    annealing = False
    """Whether the rate is on its way to zero. `AutoLRScheduler` changes it by nothing but the emergency brake then."""

    def __init__(
        self,
        optimizer: Any,
        config: AdaptiveLRConfig,
        use_moe: bool = False,
        log_fn: Callable[[dict[str, Any]], None] | None = None,
        *,
        groups: Mapping[str, GroupSettings] | None = None,
        start_step: int = 0,
        announced_at: int | None = None,
        **kwargs: Any,
    ) -> None:
        base, self._groups = config.effective(use_moe), groups or {}
        self.roles = make_roles(optimizer.param_groups, self._groups, base)
        self.scales = {name: role.in_bounds(base.initial_lr, role.start_scale) for name, role in self.roles.items()}
        begins_at = start_step if announced_at is None else announced_at
        super().__init__(optimizer, config, use_moe, log_fn, start_step=begins_at, **kwargs)
        self.start_step = start_step

    def start_later(self, steps: int) -> None:
        """Count from `steps` later: it counts the losses that it sees, and these steps had none for it."""
        self.start_step += steps

    def keep_own_lr(self) -> None:
        """Under these rules a change of `current_lr` that no decision made stands."""

    def write_rates(self) -> None:
        """Write every rate into the param groups, where a snapshot just restored has brought older ones back."""
        self._apply()

    def role_lrs(self) -> dict[str, float]:
        """Learning rate of each role that is told something, warm-up and anneal aside."""
        return {name: role.lr(self.current_lr, self.scales[name]) for name, role in self.roles.items()}

    def rates(self) -> Rates:
        """What `lower_to` may come back to."""
        return Rates(self.current_lr, dict(self.scales))

    def lower_to(self, kept: Rates) -> None:
        """Bring base and every role down to where they were, each unless it is lower now."""
        now = self.role_lrs()
        self.current_lr = min(self.current_lr, kept.lr)
        for name, role in self.roles.items():
            then = role.lr(kept.lr, kept.scales.get(name, self.scales[name]))
            self.scales[name] = role.scale_of(min(now[name], then), self.current_lr)
        self.lr_history.append(self.current_lr)
        self._apply()

    def restore(self, kept: Rates, name: str, reason: str) -> None:
        """Bring base and every role back to where they were, on the record."""
        # Roles may have come and gone since, with another settings file on resume.
        before = self.role_lrs()
        self.scales = {role: kept.scales.get(role, scale) for role, scale in self.scales.items()}
        after = {role: self.roles[role].lr(kept.lr, scale) for role, scale in self.scales.items()}
        self._set_lr(kept.lr, name, reason, None, **_changes(before, after))

    def state_dict(self) -> dict[str, Any]:
        """As the base class, with the scale of each role that is told something."""
        groups = {"groups": dict(self.scales)} if self.scales else {}
        return {**super().state_dict(), **groups}

    @staticmethod
    def check_state(state: Any) -> None:
        """As the base class."""
        AdaptiveLRScheduler.check_state(state)
        check_state("adaptive LR state", state, {"groups": by_name(RATE)}, may_lack=("groups",))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As the base class; a role the state knows nothing of begins at its start ratio."""
        self.check_state(state)
        learned = state.get("groups", {})
        super().load_state_dict(state)
        for name, role in self.roles.items():
            self.scales[name] = role.in_bounds(self.current_lr, learned.get(name, role.start_scale))
        self._apply()

    def _apply(self) -> None:
        """As every step of a run does; a group that joins is known by itself, not by its place among several."""
        groups = self.optimizer.param_groups
        write_scales(groups, self.scales)
        set_learning_rate(groups, self.current_lr)

    def _adjust_groups(self, decision: LRDecision, old_lr: float, new_lr: float) -> dict[str, Any]:
        if decision is LRDecision.HOLD or not self.roles:
            return {}
        before = self.role_lrs()
        scales = {name: role.follow(decision, old_lr, new_lr, self.scales[name]) for name, role in self.roles.items()}
        after = {name: role.lr(new_lr, scales[name]) for name, role in self.roles.items()}
        if new_lr == old_lr and after == before:
            return {}
        self.scales = scales
        return _changes(before, after)

    def _emit_init(self, warmup_steps: int, **extra: Any) -> None:
        if self.roles:
            lrs = self.role_lrs()
            extra["groups"] = {
                name: {"lr": lrs[name], "lr_min": role.limits.lr_min, "lr_max": role.limits.lr_max}
                | {key: value for key, value in role.settings.said.items() if key not in ("lr_min", "lr_max")}
                for name, role in self.roles.items()
            }
            extra["param_groups"] = [role_of(group) for group in self.optimizer.param_groups]  # the order of `lr`
        super()._emit_init(warmup_steps, **extra)


def _changes(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, Any]:
    """The `groups` key of an adjustment's record; absent where no role is told something."""
    return {"groups": {name: {"old_lr": lr, "new_lr": after[name]} for name, lr in before.items()}} if before else {}
