"""Replay: feed a recorded run's losses to the scheduler under other settings, and see what it would have decided.

The loop is open: the losses stay those recorded, although another learning rate would have made others. With the
settings of the recording every decision comes out again, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from aios.auto_lr.adaptive_lr import (
    DEFAULT_LR,
    AdaptiveLRConfig,
    AdaptiveLRScheduler,
    default_warmup_steps,
    preflight_moe_lr,
)
from aios.auto_lr.anneal import DEFAULT_FRACTION, Anneal
from aios.auto_lr.param_groups import BASE
from aios.auto_lr.search import RangeTestConfig, RangeTestResult
from aios.errors import RunError, UserError
from aios.replay.recording import Recording, Sitting, Step
from aios.run_view.events import Adjustment, adjustment_from, number
from aios.settings.adaptive_lr_file import build_config, load_group_settings
from aios.settings.config import TrainingConfig, allowed_types, field_types
from aios.settings.settings_file import unknown_key

if TYPE_CHECKING:
    from aios.auto_lr.challenge import Challenge
    from aios.auto_lr.recovery import Recovery

PROFILE = "profile"
"""The key of `--set` that is no AdaptiveLRConfig field."""
_PROFILES = allowed_types(field_types()["adaptive_lr_profile"])[1]
_KINDS: dict[str, type] = {f.name: type(f.default) for f in fields(AdaptiveLRConfig)}
_NOUNS = {bool: "true or false", int: "a whole number", float: "a number"}
_BOOLS = {"true": True, "false": False}


@dataclass(frozen=True)
class Choice:
    """What to replay a run with; whatever is left out is as recorded."""

    profile: str | None = None
    """`rules` or `auto`."""
    settings_file: str | None = None
    """An adaptive-LR settings file in place of the recorded run's."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """AdaptiveLRConfig fields; they win over any file."""


@dataclass
class Replay:
    """What the scheduler would have decided."""

    profile: str
    """That of the last sitting."""
    config: AdaptiveLRConfig
    """The settings in force in the last sitting."""
    adjustments: list[Adjustment] = field(default_factory=list)
    """In order."""
    steps: list[Step] = field(default_factory=list)
    """The recorded steps that were fed, in order."""
    lrs: list[float] = field(default_factory=list)
    """Learning rate of each of `steps`, the anneal included."""
    end_lr: float = math.nan
    """The adaptive rate at the end, the anneal left out."""
    notes: list[str] = field(default_factory=list)
    """Sentences on where the replay is no true likeness."""


def parse_settings(texts: list[str]) -> Choice:
    """The choice that `--set key=value` texts mean.

    Raises:
        UserError: for an unknown key or a value of the wrong type. Ranges are checked when the settings are used.
    """
    profile: str | None = None
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UserError(f"--set {text}: no `=` in it; write --set key=value, for example --set window_size=20.")
        if key == PROFILE:
            profile = value
        elif key in _KINDS:
            settings[key] = _parsed(key, value)
        else:
            raise unknown_key("--set", key, [PROFILE, *_KINDS])
    if profile is not None and profile not in _PROFILES:
        raise UserError(f"--set profile={profile} is not allowed; choose one of {', '.join(_PROFILES)}.")
    return Choice(profile, settings=settings)


def _parsed(key: str, text: str) -> Any:
    kind = _KINDS[key]
    try:
        return _BOOLS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"--set {key}={text} has the wrong type; write {_NOUNS[kind]}.") from error


def replay(recording: Recording, choice: Choice) -> Replay:
    """What the scheduler decides on the losses of `recording` under `choice`.

    A resume in the recording is one here: settings of the new sitting, what was learned before it.

    Raises:
        UserError: for settings that are out of range or contradict each other, or a settings file that cannot be read.
    """
    player: _Player | None = None
    for sitting in recording.sittings:
        player = _Player(sitting, choice, player)
        if not player.play():
            break
    assert player is not None  # a recording has a sitting
    result = player.result
    result.end_lr = player.scheduler.current_lr
    result.notes += _likeness(recording, player, choice)
    return result


class _Base(NamedTuple):
    """What the settings of a run are derived from."""

    lr: float
    """Rate to begin with."""
    bounds: tuple[float, float] | None
    """(lr_min, lr_max) as measured by a search."""


class _Player:
    """One sitting of a recording, played to a scheduler that goes on from `before`'s."""

    def __init__(self, sitting: Sitting, choice: Choice, before: _Player | None) -> None:
        self.sitting = sitting
        self.config = sitting.config
        self._choice = choice
        self.profile = choice.profile or self.config.adaptive_lr_profile
        self.searched: RangeTestResult | None = sitting.search or (before.searched if before is not None else None)
        self.first_step = self._first_step(before)
        self.warmup_end = self._warmup_end()
        self.anneal = self._anneal(before)
        self.step = sitting.first_step
        base = self._base(before)
        settings = _settings(self.config, base, choice)
        self.scheduler = self._scheduler(settings, base.bounds is not None)
        self.recovery = _recovery(self) if self.profile == "auto" else None
        self.challenge = _challenge(self)
        self.result: Replay = before.result if before is not None else Replay(self.profile, settings)
        if before is not None:
            self._go_on(before)
        self.result.profile, self.result.config = self.profile, self.scheduler.config
        if self.recovery is not None:
            self.recovery.keep_snapshot()

    def play(self) -> bool:
        """Feed all steps; False when the ladder of profile `auto` would have ended the run before."""
        for step in sorted(self.sitting.steps):
            self._try_higher(step - 1)
            try:
                self._feed(self.sitting.steps[step])
            except RunError as error:
                self.result.notes.append(f"Profile auto would have stopped the run at step {step}: {error}")
                return False
            if step in self.sitting.finishes:
                self.anneal = self.sitting.finishes[step]
            if step in self.sitting.merges:
                self._forget_reference()
            if step in self.sitting.checkpoints and self.recovery is not None and self.recovery.healthy:
                self.recovery.keep_snapshot()  # as the trainer does beside a checkpoint
        return True

    def _feed(self, seen: Step) -> None:
        self.step = seen.step
        skip_above = self.recovery.skip_above if self.recovery is not None else math.inf
        if hasattr(self.scheduler, "annealing"):
            self.scheduler.annealing = self.anneal.begun(seen.step + 1)
        if seen.step > self.warmup_end:
            self.result.steps.append(seen)
            self.result.lrs.append(self.scheduler.current_lr * self.anneal.factor(seen.step))
            self.scheduler.step(seen.ce)
        overflow = self.config.model_dtype == "fp16" and math.isfinite(seen.ce) and math.isnan(seen.grad_norm)
        if self.recovery is not None and not overflow:
            self.recovery.after_step(seen.step, seen.ce, seen.grad_norm, skip_above)
        if self.challenge is not None:
            self.challenge.observe(seen.step, seen.ce)

    def _try_higher(self, step: int) -> None:
        """Let a higher rate have shown what it showed in the recorded run, where one was tried up to `step`."""
        losses = self.sitting.challenges.get(step)
        if self.challenge is not None and losses:
            lr = self.challenge.next_lr(step - len(losses), self.anneal.start)
            if lr is not None:
                self.challenge.begin(step, lr, losses)

    def _forget_reference(self) -> None:
        """As a worker does whose weights are merged with the others'."""
        self.scheduler.forget_reference()
        if self.recovery is not None:
            self.recovery.monitor.forget_level()
            self.recovery.keep_snapshot()
        if self.challenge is not None:
            self.challenge.cancel()

    def hear(self, record: dict[str, Any]) -> None:
        """Take an event of the scheduler or of the ladder."""
        if record["event"] == "adaptive_lr_adjustment":
            self.result.adjustments.append(adjustment_from(record, self.step, None))

    def _first_step(self, before: _Player | None) -> int:
        if before is not None:
            return before.first_step
        return self.searched.steps if self.searched is not None else 0

    def _warmup_end(self) -> int:
        if self.sitting.warmup_complete is not None:
            return self.sitting.warmup_complete
        logged = number(self.sitting.init or {}, "warmup_steps")
        if math.isfinite(logged):
            steps = int(logged)
        elif self.config.warmup_steps is not None:
            steps = self.config.warmup_steps
        else:
            steps = default_warmup_steps(self.config.steps)
        return max(self.sitting.first_step, self.first_step + steps)

    def _anneal(self, before: _Player | None) -> Anneal:
        if before is not None and before.sitting.finishes and self.sitting.first_step < before.anneal.end:
            return before.anneal
        fraction = self.config.anneal_fraction
        if fraction is None:
            fraction = DEFAULT_FRACTION if self.profile == "auto" else 0.0
        return Anneal.of_run(self.config.steps, fraction)

    def _base(self, before: _Player | None) -> _Base:
        # Where a run goes on under the plain rules, what a search had found before is no longer asked.
        found = self.searched if self.config.adaptive_lr_profile == "auto" else None
        if found is not None and found.suggestion is not None:
            if before is not None and before.challenge is not None and found.lr_min is not None:
                return _Base(found.suggestion, (found.lr_min, before.scheduler.config.lr_max))
            return _Base(found.suggestion, found.bounds)
        lr = DEFAULT_LR if self.config.lr is None else self.config.lr
        return _Base(preflight_moe_lr(lr)[0] if self.config.use_moe else lr, None)

    def _scheduler(self, settings: AdaptiveLRConfig, searched: bool) -> AdaptiveLRScheduler:
        groups = load_group_settings(self._choice.settings_file or self.config.adaptive_lr_config)
        optimizer = SimpleNamespace(param_groups=[{"lr": settings.initial_lr, "role": r} for r in (BASE, *groups)])
        use_moe = self.config.use_moe
        if self.profile == "rules" and not groups:
            return AdaptiveLRScheduler(optimizer, settings, use_moe, self.hear)
        # Imported late: torch comes with them.
        from aios.auto_lr.api import noise_rules
        from aios.auto_lr.grouped_scheduler import GroupedLRScheduler
        from aios.auto_lr.rules import NoiseRules
        from aios.auto_lr.scheduler import AutoLRScheduler

        if self.profile == "rules":
            return GroupedLRScheduler(optimizer, settings, use_moe, self.hear, groups=groups)
        rules = noise_rules(NoiseRules(), self.config.steps, searched)
        return AutoLRScheduler(optimizer, settings, use_moe, self.hear, groups=groups, rules=rules)

    def _go_on(self, before: _Player) -> None:
        """Restore what was learned where the recorded run did; a run whose LR was fixed had nothing to restore."""
        if self.sitting.init is not None and self.sitting.restored_lr is None:
            return
        self.scheduler.load_state_dict(before.scheduler.state_dict())
        if self.recovery is not None and before.recovery is not None:
            self.recovery.load_state_dict(before.recovery.state_dict())
        if before.challenge is not None:
            self.challenge = _challenge(self, before.challenge.state_dict())


def _settings(config: TrainingConfig, base: _Base, choice: Choice) -> AdaptiveLRConfig:
    path = choice.settings_file or config.adaptive_lr_config
    try:
        settings = build_config(path, base.lr, config.steps, config.use_moe, base.bounds, choice.settings)
    except UserError as error:
        if choice.settings_file is None and path is not None:
            raise UserError(f"The run's settings file: {error} Or give another with --adaptive-lr-config.") from error
        raise
    if config.parallel_independent:  # as in training: several windows must fit between two merges
        settings.window_size = min(settings.window_size, max(2, config.merge_every // 4))
    return settings


def _recovery(player: _Player) -> Recovery:
    """The real ladder, with nothing to rewind: the losses behind a rewind are those recorded."""
    # Imported late: torch comes with them.
    from aios.auto_lr.loop.snapshot import Snapshot
    from aios.auto_lr.recovery import Recovery
    from aios.auto_lr.scheduler import AutoLRScheduler
    from aios.auto_lr.trouble import TroubleMonitor
    from aios.auto_lr.verification import Expectation

    class Untouched(Snapshot):
        """Stands for weights that a replay has not."""

        def __init__(self) -> None:
            """Copy nothing."""

        def restore(self) -> None:
            """Restore nothing."""

    assert isinstance(player.scheduler, AutoLRScheduler)
    recovery = Recovery(player.scheduler, TroubleMonitor(), Untouched, player.hear)
    found = player.sitting.search
    if found is not None and found.suggestion is not None:
        recovery.expectation = Expectation.from_search(found, RangeTestConfig().clear_drop)
    return recovery


def _challenge(player: _Player, learned: dict[str, Any] | None = None) -> Challenge | None:
    """The challenges that the run had to make, or goes on with."""
    # Imported late: torch comes with them.
    from aios.auto_lr.challenge import Challenge, ChallengeConfig, challenge_after
    from aios.auto_lr.scheduler import AutoLRScheduler

    found, scheduler = player.sitting.search, player.scheduler
    if not isinstance(scheduler, AutoLRScheduler):
        return None
    if learned is not None:
        return Challenge.from_state(scheduler, learned, player.hear, ChallengeConfig())
    if found is None or found.suggestion is None:
        return None
    budget, settings = RangeTestConfig().budget, ChallengeConfig()
    return challenge_after(found, scheduler, player.config.steps, budget, player.hear, settings)


def _likeness(recording: Recording, player: _Player, choice: Choice) -> list[str]:
    """Sentences on what differs from the recording for another reason than `choice`."""
    notes = []
    logged = [step.step for step in recording.ordered_steps()]
    tried = sum(len(losses) for sitting in recording.sittings for losses in sitting.challenges.values())
    if (missing := logged[-1] - logged[0] + 1 - len(logged) - tried) > 0:
        notes.append(f"{missing} steps are missing from the log; decisions behind them may differ for that reason.")
    if any(sitting.init is None for sitting in recording.sittings):
        notes.append("The rate was fixed in a part of the recording; the replay shows what it would have been.")
    if any(a.decision in ("rewind_decrease", "search_decrease") for a in player.result.adjustments):
        notes.append("A rewind cannot be replayed: the losses behind it are those recorded.")
    init = player.sitting.init
    if init is not None and choice.settings_file is None and not choice.settings:
        names = ("initial_lr", "lr_min", "lr_max", "window_size")
        changed = [name for name in names if init.get(name) != getattr(player.result.config, name)]
        if changed:
            notes.append(f"{', '.join(changed)} differ from the recording: has its settings file been changed since?")
    return notes
