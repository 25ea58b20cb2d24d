"""What a run's learning rate is built from: one frozen plan, made in one place for every loop.

`make_plan` says how a run begins, `resumed_plan` how it goes on from what was saved. Both are pure functions; the
controller (`control`) is built whole from the plan and nothing of it is set from outside afterwards. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, default_warmup_steps, preflight_moe_lr
from aios.auto_lr.anneal import DEFAULT_FRACTION, Anneal
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.learning import Expected
from aios.auto_lr.param_groups import GroupSettings
from aios.auto_lr.race import RaceConfig
from aios.auto_lr.ranges import Range, check_number, check_numbers
from aios.auto_lr.rules import NoiseRules
from aios.auto_lr.search import Found, bounds_around
from aios.auto_lr.trouble_config import TroubleConfig

WARMUP_FRACTION = 0.05
"""Part of the steps that the warm-up takes under profile `auto`."""
UNSEARCHED_INCREASE = 1.3
"""Factor of an increase where no search said how high the LR may go: it may begin orders of magnitude too low."""

MOE_LR_MIN, MOE_LR_MAX = AdaptiveLRConfig().moe_lr_min, AdaptiveLRConfig().moe_lr_max
"""Lowest and highest rate of a mixture of experts, unless another one was measured."""

Profile = Literal["auto", "rules", "fixed", "engine"]
"""`auto`: all of it; `rules`: the plain rules; `fixed`: warm-up and anneal alone; `engine`: the LR is not ours."""

OnOverfit = Literal["finish", "keep-best", "ignore"]
"""What a turn of the evaluation loss leads to. `finish`: back to the best state, a short anneal, the end; `keep-best`:
it is told; `ignore`: nothing."""


@dataclass(frozen=True)
class AutoLRConfig:
    """How the learning rate is steered; every part can be turned off or tuned. ValueError names a bad field."""

    profile: Profile = "auto"
    """Who decides, see `Profile`."""
    warmup_fraction: float | None = None
    """Part of the steps in which the LR rises linearly. None: 0.05 under `auto`, else as under `rules` (0.1)."""
    warmup_steps: int | None = None
    """The same in optimizer steps; wins over the fraction."""
    anneal_fraction: float | None = None
    """Last part of the steps, in which the LR goes linearly to zero; 0: never. None: 0.3, but under `auto` alone."""
    max_grad_norm: float = 1.0
    """Clip the gradient to this global L2 norm."""
    count_search: bool = False
    """Whether the steps of a race are among the run's; else they come on top."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `AdaptiveLRConfig` given explicitly; they win over what is derived or found."""
    window_limit: int | None = None
    """Longest window of losses, in optimizer steps, whatever `settings` say."""
    climb: ClimbConfig = field(default_factory=ClimbConfig)
    """The search of a fresh model."""
    race: RaceConfig = field(default_factory=RaceConfig)
    """The search of a model that was trained before, or where the climb tells nothing."""
    rules: NoiseRules = field(default_factory=NoiseRules)
    """The decisions between warm-up and anneal under `auto`."""
    trouble: TroubleConfig = field(default_factory=TroubleConfig)
    """When to skip, cut, rewind and stop."""
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)
    """Settings of param groups by role: a group's `role` entry, else its `name`. Not the role of a weight in its model,
    which `role_factors` go by."""
    role_lr: bool = True
    """Whether recurrent weights of a fresh model get their own rate (see `loop.role_plan`)."""
    role_factors: Mapping[str, float] = field(default_factory=dict)
    """Rate of a role over that of the rest, in place of the measured ones: by what a weight is for in its model
    (`roles_of`), not by the role of a param group, as in `groups`."""
    on_overfit: OnOverfit = "keep-best"
    """What evaluations handed to `report_eval` may lead to; `finish` under profile `auto` alone, else `keep-best`."""

    @property
    def overfit_policy(self) -> OnOverfit:
        """`on_overfit`, as far as the profile goes along with it."""
        return "keep-best" if self.on_overfit == "finish" and self.profile != "auto" else self.on_overfit

    def __post_init__(self) -> None:
        check_numbers(self, {"warmup_fraction": Range(0, 1), "anneal_fraction": Range(0, 1)})
        for name, least in (("warmup_steps", 0), ("window_limit", 2)):
            if (count := getattr(self, name)) is not None:
                check_number(name, count, Range(least), whole=True)
        if self.max_grad_norm != math.inf:  # infinity: nothing is clipped
            check_number("max_grad_norm", self.max_grad_norm, Range(0, low_open=True))
        for name, known in (("profile", get_args(Profile)), ("on_overfit", get_args(OnOverfit))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} = {value!r} is not allowed: one of {', '.join(known)}")
        for role, factor in self.role_factors.items():
            check_number(f"role_factors: {role}", factor, Range(0, low_open=True))
        if odd := [role for role, settings in self.groups.items() if not isinstance(settings, GroupSettings)]:
            raise ValueError(f"groups: {odd[0]} = {self.groups[odd[0]]!r} is not allowed: must be a GroupSettings")
        fields = AdaptiveLRConfig.__dataclass_fields__
        if unknown := [name for name in self.settings if name not in fields]:
            raise ValueError(f"settings: {unknown[0]!r} is no field of AdaptiveLRConfig: {', '.join(fields)}")


@dataclass(frozen=True)
class Given:
    """What a plan is made from, whether the run begins or goes on."""

    config: AutoLRConfig
    """How it is steered."""
    steps: int
    """The optimizer step at which the run ends."""
    lr: float
    """The rate the optimizer was built with."""
    use_moe: bool = False
    """Whether the model is a mixture of experts."""


@dataclass(frozen=True)
class Plan:
    """Everything the learning rate of a run follows from, settled before its first step."""

    config: AutoLRConfig
    """What it was made from."""
    steps: int
    """The optimizer step at which the run ends."""
    asked_lr: float
    """The rate the optimizer was built with; `base_lr` may differ from it."""
    base_lr: float
    """The rate to warm up to."""
    bounds: tuple[float, float] | None
    """(lr_min, lr_max) as a search measured them; None: none gave a suggestion."""
    warmup_steps: int
    """Optimizer steps of linear warm-up after `first_step`."""
    first_step: int
    """Steps counted before training began."""
    settings: AdaptiveLRConfig
    """Of the scheduler."""
    anneal: Anneal
    """The end of the run."""
    rules: NoiseRules
    """Of the decisions under `auto`."""
    use_moe: bool = False
    """Whether the model is a mixture of experts."""
    start_loss: float | None = None
    """The loss that a climb began with."""
    expected: Expected | None = None
    """What the loss has to come down to at the rate that a climb found."""
    lengthened_at: int = 0
    """Where a run that had been annealed last went on for longer: the anneal is the last part of what came then."""
    rises_again: bool = False
    """Whether it goes on for longer just now, and warms up a second time."""
    finishing: bool = False
    """Whether the run was asked to finish now."""

    @property
    def profile(self) -> Profile:
        """Who decides."""
        return self.config.profile

    def settings_from(self, lr: float) -> AdaptiveLRConfig:
        """Scheduler settings for continuing at `lr`, as after a resume."""
        return scheduler_settings(self.config, self.steps - self.first_step, lr, bounds_around(lr), self.use_moe)

    @property
    def warmup_end(self) -> int:
        """The last step of the warm-up."""
        return self.first_step + self.warmup_steps

    @property
    def lifted(self) -> tuple[float, str] | None:
        """The bound that a mixture of experts exceeds, and why; None if it exceeds none."""
        bound = min(max(self.base_lr, MOE_LR_MIN), MOE_LR_MAX)
        if not self.use_moe or self.bounds is None or bound == self.base_lr:
            return None
        return bound, f"measured on this model: {self.base_lr:.3g} trains, so the bound of {bound:.3g} gives way"

    @property
    def preflight(self) -> tuple[float, str] | None:
        """The rate asked for, and why a mixture of experts does not begin at it; None where it does."""
        if not self.use_moe or self.bounds is not None or self.profile not in ("auto", "rules"):
            return None
        lr, reason = preflight_moe_lr(self.asked_lr)
        # If it begins at another one still, that is because of the settings.
        return (self.asked_lr, reason) if reason is not None and lr == self.base_lr else None


def make_plan(given: Given, found: Found | None = None, first_step: int = 0) -> Plan:
    """The plan of a run that begins after `first_step` steps, at the rate that was given.

    What a search `found` replaces the rate and its bounds; after a climb that saw a fall there is no other warm-up.
    Raises ValueError for settings that contradict each other.
    """
    base_lr, bounds = given.lr, None
    if found is not None and found.lr is not None:
        base_lr, bounds = found.lr, found.bounds
    plan = _plan(given, base_lr, bounds, first_step)
    if plan.profile != "auto" or found is None:
        return plan
    plan = replace(plan, start_loss=found.start_loss)
    if (expected := Expected.after(found)) is None:
        return plan
    kept = plan.base_lr == found.lr  # else the settings chose another rate, and nothing is known of that
    return replace(plan, warmup_steps=0, expected=expected if kept else None)


def resumed_plan(given: Given, saved: Mapping[str, Any], step: int, forget: bool = False) -> Plan:
    """The plan of a run that goes on after optimizer step `step`; `saved` is the state of its controller then.

    New settings win; what a search found stays. A warm-up that is over stays over; one in progress keeps its length
    unless a new one is given. A run that was annealed and now goes on for longer is planned like a new one of the steps
    that are left: it rises gently to the rate it had, or to its base rate where what was learned is to be forgotten
    (`forget`), and under a profile that decides nothing.
    """
    config, base_lr, bounds = given.config, given.lr, None
    if saved["bounds"] is not None and config.profile == saved.get("profile", "auto"):
        base_lr, bounds = float(saved["base_lr"]), (float(saved["bounds"][0]), float(saved["bounds"][1]))
    first_step, warmup_steps = int(saved["first_step"]), int(saved["warmup_steps"])
    plan = _plan(given, base_lr, bounds, first_step, int(saved.get("lengthened_at", 0)))
    plan = replace(plan, start_loss=saved.get("start_loss"))
    if step >= first_step + warmup_steps or config.warmup_steps is None:
        plan = replace(plan, warmup_steps=warmup_steps)
    before = Anneal.from_dict(saved["anneal"])
    longer = plan.steps > before.end or not plan.anneal.begun(step)
    if saved["finishing"] and step < before.end:
        plan = replace(plan, anneal=before, finishing=True)
    elif saved["scheduler"] is not None and before.begun(step) and longer:
        plan = _rising_again(_plan(given, base_lr, bounds, step, lengthened_at=step))
    keeps = saved["scheduler"] is not None and not forget and plan.profile in ("auto", "rules")
    return _at(plan, float(saved["scheduler"]["current_lr"])) if keeps else plan


def _rising_again(plan: Plan) -> Plan:
    """`plan` with a second warm-up."""
    warmup_steps = math.floor(WARMUP_FRACTION * (plan.steps - plan.first_step))
    return replace(plan, warmup_steps=warmup_steps, rises_again=True)


def _at(plan: Plan, learned_lr: float) -> Plan:
    """`plan` at the rate that was learned, as far as its settings allow it: they keep in mind what it was."""
    settings = replace(plan.settings, initial_lr=learned_lr).effective(plan.use_moe)
    return replace(plan, settings=settings, base_lr=settings.initial_lr if plan.rises_again else plan.base_lr)


def scheduler_settings(
    config: AutoLRConfig, steps: int, base_lr: float, bounds: tuple[float, float] | None, use_moe: bool
) -> AdaptiveLRConfig:
    """Settings for `steps` of training: in the bounds a search found; without, under `auto`, with larger increases."""
    given = dict(config.settings)
    derived: dict[str, Any] = {}
    if config.profile == "auto" and bounds is None:
        derived["increase_factor"] = UNSEARCHED_INCREASE
    elif bounds is not None and not {"initial_lr", "lr_min", "lr_max"} & given.keys():
        derived |= {"lr_min": bounds[0], "lr_max": bounds[1]}
        if use_moe:  # a rate measured on this model overrules the bound for all models
            derived |= {"moe_lr_min": min(MOE_LR_MIN, bounds[0]), "moe_lr_max": max(MOE_LR_MAX, bounds[1])}

    def settings_at(lr: float) -> AdaptiveLRConfig:
        return AdaptiveLRConfig.from_base_lr(lr, steps, use_moe, **{**derived, **given})

    settings = settings_at(base_lr)
    if config.window_limit is not None and settings.window_size > config.window_limit:
        given["window_size"] = config.window_limit
        settings = settings_at(base_lr)
    if bounds is not None and settings.initial_lr != base_lr:  # a resume knows only the clamped rate
        settings = replace(settings_at(settings.initial_lr), initial_lr=base_lr).effective(use_moe)
    return settings


def noise_rules(rules: NoiseRules, steps: int, searched: bool = True) -> NoiseRules:
    """The rules for a run of `steps`: a plateau is judged over a tenth of it.

    Where no search gave a suggestion, any fall that stands out from the noise, however small, may raise the LR:
    far too low a rate never makes the loss fall by much in one window.
    """
    raise_gain = rules.raise_gain if searched else 0.0
    return replace(rules, raise_gain=raise_gain, plateau_steps=min(rules.plateau_steps, max(10, steps // 10)))


def _plan(
    given: Given, base_lr: float, bounds: tuple[float, float] | None, first_step: int, lengthened_at: int = 0
) -> Plan:
    config, steps, use_moe = given.config, given.steps, given.use_moe
    steers = config.profile in ("auto", "rules")
    if steers and use_moe and bounds is None:
        base_lr, _ = preflight_moe_lr(base_lr)
    settings = scheduler_settings(config, steps - first_step, base_lr, bounds, use_moe)
    return Plan(
        config=config,
        steps=steps,
        asked_lr=given.lr,
        base_lr=settings.initial_lr if steers else base_lr,
        bounds=bounds,
        warmup_steps=_warmup_steps(config, steps - first_step),
        first_step=first_step,
        settings=settings,
        anneal=Anneal.of_run(steps, _anneal_fraction(config), lengthened_at),
        lengthened_at=lengthened_at,
        rules=noise_rules(config.rules, steps, searched=bounds is not None),
        use_moe=use_moe,
    )


def _warmup_steps(config: AutoLRConfig, steps: int) -> int:
    if config.warmup_steps is not None:
        return config.warmup_steps
    if config.warmup_fraction is None and config.profile != "auto":
        return default_warmup_steps(steps)
    return int((WARMUP_FRACTION if config.warmup_fraction is None else config.warmup_fraction) * steps)


def _anneal_fraction(config: AutoLRConfig) -> float:
    if config.anneal_fraction is not None:
        return config.anneal_fraction
    return DEFAULT_FRACTION if config.profile == "auto" else 0.0
