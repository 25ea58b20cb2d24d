"""The learning rate of a training run: from the flags, a search, or the checkpoint it resumes."""

from __future__ import annotations

import math
from typing import Any

from aios.auto_lr.anneal import DEFAULT_FRACTION, Anneal
from aios.auto_lr.api import WARMUP_FRACTION, noise_rules, search_record
from aios.auto_lr.challenge import Challenge, ChallengeConfig, challenge_after
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.grouped_scheduler import GroupedLRScheduler
from aios.auto_lr.loop.trial import search_and_restore
from aios.auto_lr.param_groups import start_scales, write_scales
from aios.auto_lr.recovery import Recovery
from aios.auto_lr.rules import NoiseRules
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.search import RangeTestConfig, RangeTestResult
from aios.auto_lr.trouble import TroubleConfig, TroubleMonitor
from aios.auto_lr.verification import Expectation
from aios.cli.hrm_hf.adaptive_lr import (
    DEFAULT_LR,
    AdaptiveLRConfig,
    AdaptiveLRScheduler,
    default_warmup_steps,
    preflight_moe_lr,
)
from aios.cli.hrm_hf.train_epoch import RunTrial, TrainingRun
from aios.errors import UserError
from aios.settings.adaptive_lr_file import build_config, load_group_settings
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import copying_obstacle, has_scheduler


def will_search(config: TrainingConfig, state: dict[str, Any] | None) -> bool:
    """Whether a run that starts from `state` begins with a search: under `auto`, before its first step."""
    wanted = config.auto_adjust_lr and config.adaptive_lr_profile == "auto" and (state is None or state["step"] == 0)
    return wanted and not has_scheduler(config) and copying_obstacle(config) is None


def plan_learning_rate(run: TrainingRun, state: dict[str, Any] | None) -> LearningRateControl:
    """Warm-up, scheduler, anneal and recovery of the run, as `state` left them where there is one.

    A fresh run under profile `auto` searches first: `run.step` then counts the steps the search took.
    """
    config = run.config
    _say_what_is_impossible(run)
    if run.engine.schedules_lr:
        return EngineScheduledLR(run)
    saved = state["lr_plan"] if state is not None and state["step"] > 0 else None
    found = search(run) if will_search(config, state) else None
    first_step = run.step if saved is None else int(saved["first_step"])
    base_lr, bounds, settings = _settings(run, found, saved)
    warmup_steps = _warmup_steps(config, run.step, found, saved)
    control = LearningRateControl(
        run.optimizer, base_lr, warmup_steps, None, run.emit,
        first_step=first_step, anneal=_anneal(config), bounds=bounds,
    )  # fmt: skip
    if config.auto_adjust_lr:
        control.scheduler = _scheduler(run, settings, control)
        if isinstance(control.scheduler, AutoLRScheduler):
            control.recovery = _recovery(run, control.scheduler)
            if found is not None and found.suggestion is not None:
                control.recovery.expectation = Expectation.from_search(found, RangeTestConfig().clear_drop)
                control.challenge = challenge_after(
                    found, control.scheduler, config.steps, RangeTestConfig().budget, run.emit, ChallengeConfig()
                )
    if saved is not None and state is not None:
        _restore(run, control, state)
    if control.recovery is not None:
        control.recovery.keep_snapshot()
    return control


class EngineScheduledLR(LearningRateControl):
    """The engine's own scheduler sets the LR after each update, and nobody else does."""

    def __init__(self, run: TrainingRun) -> None:
        lr = float(run.optimizer.param_groups[0]["lr"])
        super().__init__(run.optimizer, lr, 0, None, run.emit, anneal=Anneal.of_run(run.config.steps, 0.0))

    def before_step(self, step: int) -> None:
        """Nothing: the LR in force is the one to train with."""

    def finish_now(self, step: int) -> int:
        """There is no anneal to end with, so the run ends at once; returns the step at which to end."""
        return step


def _say_what_is_impossible(run: TrainingRun) -> None:
    """Log which parts of the adaptive LR the engine leaves no room for, and why."""
    if not run.config.auto_adjust_lr:
        return
    disabled = {"event": "adaptive_lr_disabled", "step": run.step}
    if run.engine.schedules_lr:
        run.emit({**disabled, "reason": "deepspeed_scheduler_present"})
    elif run.engine.snapshot_obstacle is not None and run.config.adaptive_lr_profile == "auto":
        for part in ("search", "rewind"):
            run.emit({**disabled, "part": part, "reason": f"no_exact_snapshot ({run.engine.snapshot_obstacle})"})


def search(run: TrainingRun) -> RangeTestResult:
    """Find the LR on the first batches of the run and take everything back but the count of its steps."""
    first_batch = run.position // run.config.gradient_accumulation_steps
    groups = run.optimizer.param_groups
    write_scales(groups, start_scales(groups, load_group_settings(run.config.adaptive_lr_config)))
    snapshot = run.engine.snapshot()
    run.model.train()
    found = search_and_restore(RunTrial(run), snapshot, run.config.steps, first_batch, RangeTestConfig())
    run.step += found.steps
    run.emit({"event": "adaptive_lr_search", "step": run.step, **search_record(found)})
    return found


def _settings(
    run: TrainingRun, found: RangeTestResult | None, saved: dict[str, Any] | None
) -> tuple[float, tuple[float, float] | None, AdaptiveLRConfig]:
    """The LR to warm up to, measured bounds, and the scheduler's settings; a settings file wins over the search."""
    config = run.config
    base_lr = config.lr if config.lr is not None else DEFAULT_LR
    bounds = found.bounds if found is not None else None
    if saved is not None and saved["bounds"] is not None and config.adaptive_lr_profile == "auto":
        base_lr, bounds = float(saved["base_lr"]), (saved["bounds"][0], saved["bounds"][1])
    elif found is not None and found.suggestion is not None:
        base_lr = found.suggestion
    elif config.use_moe and config.auto_adjust_lr:
        base_lr = _preflight(run, base_lr, announce=saved is None)
    settings = build_config(config.adaptive_lr_config, base_lr, config.steps, config.use_moe, bounds)
    if config.parallel_independent:  # a merge cuts the open window short, so several must fit between two of them
        settings.window_size = min(settings.window_size, max(2, config.merge_every // 4))
    return (settings.initial_lr if config.auto_adjust_lr else base_lr), bounds, settings


def _preflight(run: TrainingRun, asked: float, announce: bool) -> float:
    """For a mixture of experts the LR is moved, once, into the range that trains."""
    lr, reason = preflight_moe_lr(asked)
    if reason is not None and announce:
        rates = {"original_lr": asked, "adjusted_lr": lr}
        run.emit({"event": "moe_lr_adjustment", "step": run.step, **rates, "reason": reason})
    return lr


def _warmup_steps(
    config: TrainingConfig, step: int, found: RangeTestResult | None, saved: dict[str, Any] | None
) -> int:
    """A warm-up that is over stays over; one in progress keeps its length unless a new one is given."""
    if saved is not None:
        over = step >= saved["first_step"] + saved["warmup_steps"]
        if over or config.warmup_steps is None:
            return int(saved["warmup_steps"])
    if config.warmup_steps is not None:
        return config.warmup_steps
    if found is not None and found.suggestion is not None:
        return math.floor(WARMUP_FRACTION * config.steps)
    return default_warmup_steps(config.steps)


def _anneal(config: TrainingConfig) -> Anneal:
    fraction = config.anneal_fraction
    if fraction is None:
        fraction = DEFAULT_FRACTION if config.auto_adjust_lr and config.adaptive_lr_profile == "auto" else 0.0
    return Anneal.of_run(config.steps, fraction)


def _scheduler(run: TrainingRun, settings: AdaptiveLRConfig, control: LearningRateControl) -> AdaptiveLRScheduler:
    config = run.config
    shared: dict[str, Any] = {
        "use_moe": config.use_moe,
        "log_fn": run.emit,
        "start_step": run.step,
        "warmup_steps": control.warmup_steps,
        "groups": load_group_settings(config.adaptive_lr_config),
    }
    if config.adaptive_lr_profile == "auto":
        rules = noise_rules(NoiseRules(), config.steps, searched=control.bounds is not None)
        scheduler: GroupedLRScheduler = AutoLRScheduler(run.optimizer, settings, rules=rules, **shared)
    else:
        scheduler = GroupedLRScheduler(run.optimizer, settings, **shared)
    scheduler.start_step = max(run.step, control.warmup_end)  # it starts to count when the warm-up hands over
    return scheduler


def _recovery(run: TrainingRun, scheduler: AutoLRScheduler) -> Recovery:
    monitor = TroubleMonitor(TroubleConfig())
    take_snapshot = run.engine.snapshot if run.engine.snapshot_obstacle is None else None
    return Recovery(scheduler, monitor, take_snapshot, run.emit)


def _restore(run: TrainingRun, control: LearningRateControl, state: dict[str, Any]) -> None:
    """Give scheduler and recovery what they had learned, unless they are to start afresh or there is nothing."""
    plan = state["lr_plan"]
    if run.step < plan["anneal"]["end"]:
        control.load_plan(plan)
    if control.scheduler is None or run.config.adaptive_lr_reset_state:
        return
    try:
        _restore_learned(run, control, state)
    except ValueError as error:
        raise UserError(
            f"What the checkpoint of step {state['step']} knows of the learning rate cannot be used ({error}); start "
            "it afresh with --adaptive-lr-reset-state."
        ) from error
    if Anneal(**plan["anneal"]).begun(run.step) and not control.anneal.begun(run.step):
        _warm_up_again(run, control)


def _restore_learned(run: TrainingRun, control: LearningRateControl, state: dict[str, Any]) -> None:
    assert control.scheduler is not None
    plan = state["lr_plan"]
    learned, recovery = state.get("adaptive_lr"), plan["recovery"]
    if learned is None:
        run.emit({"event": "adaptive_lr_state_missing", "step": run.step})
    else:
        control.scheduler.load_state_dict(learned)
        if control.scheduler.total_steps == 0:  # not begun: the warm-up may have another length now
            control.scheduler.start_step = max(run.step, control.warmup_end)
    if control.recovery is not None and recovery is not None:
        control.recovery.load_state_dict(recovery)
    if isinstance(control.scheduler, AutoLRScheduler) and plan.get("challenge") is not None:
        control.challenge = Challenge.from_state(control.scheduler, plan["challenge"], run.emit, ChallengeConfig())


def _warm_up_again(run: TrainingRun, control: LearningRateControl) -> None:
    """A run that was annealed and now goes on for longer rises gently to the rate it had; it does not jump there."""
    assert control.scheduler is not None
    control.base_lr, control.first_step = control.scheduler.current_lr, run.step
    control.warmup_steps = math.floor(WARMUP_FRACTION * (run.config.steps - run.step))
    control.scheduler.start_step += control.warmup_steps  # it does not count the steps of a warm-up
