"""From the flags of a run to the settings of its learning rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.plan import AutoLRConfig, Given, OnOverfit, Profile, make_plan
from aios.errors import UserError
from aios.settings.adaptive_lr_file import load_adaptive_lr_file, load_group_settings
from aios.settings.config import TrainingConfig


def auto_lr_config(config: TrainingConfig, given: Mapping[str, Any] | None = None) -> AutoLRConfig:
    """How a run steers its learning rate; `given` are scheduler settings by name that win over the file's.

    Raises:
        UserError: for a settings file that cannot be used, or values that are out of range or contradict each other.
    """
    path = config.adaptive_lr_config
    profile: Profile = config.adaptive_lr_profile if config.auto_adjust_lr else "fixed"
    settings = {**({} if path is None else load_adaptive_lr_file(path)), **(given or {})}
    made = AutoLRConfig(
        profile=profile,
        warmup_steps=config.warmup_steps,
        anneal_fraction=config.anneal_fraction,
        max_grad_norm=config.max_grad_norm,
        settings=settings,
        # A merge cuts the open window short, so several must fit between two of them.
        window_limit=max(2, config.merge_every // 4) if config.parallel_independent else None,
        groups=load_group_settings(path),
        role_lr=config.role_lr,
        on_overfit=_policy_for_workers(config),
    )
    try:
        make_plan(Given(made, config.steps, config.start_lr, config.use_moe))
    except (ValueError, OverflowError) as error:
        place = "adaptive learning rate" if path is None else path
        raise UserError(f"{place}: {error}; correct that value.") from error
    return made


def _policy_for_workers(config: TrainingConfig) -> OnOverfit:
    """What comes of a turn of the evaluation loss, as far as evaluations and workers go along with `--on-overfit`.

    Independent workers have a best state together, that of a merge, but no learning rate: it is kept.
    """
    if config.eval_every == 0:
        return "ignore"
    return "keep-best" if config.parallel_independent and config.on_overfit == "finish" else config.on_overfit
