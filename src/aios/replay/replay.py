"""Replay: feed a recorded run's losses to the controller under other settings, and see what it would have decided.

The loop is open: the losses stay those recorded, although another learning rate would have made others. With the
settings of the recording every decision comes out again, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, AdaptiveLRScheduler
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.param_groups import BASE
from aios.auto_lr.plan import AutoLRConfig, Given, make_plan, resumed_plan
from aios.errors import RunError, UserError
from aios.replay.recording import RecordedSitting, Recording, Step
from aios.run_view.events import Adjustment, adjustment_from, number
from aios.settings.adaptive_lr_file import SETTING_TYPES
from aios.settings.config import field_types
from aios.settings.flag_values import allowed_types, wrong_type
from aios.settings.learning_rate import auto_lr_config
from aios.settings.settings_file import unknown_key

PROFILE = "profile"
"""The key of `--set` that is no AdaptiveLRConfig field."""
_PROFILES = allowed_types(field_types()["adaptive_lr_profile"])[1]
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
        elif key in SETTING_TYPES:
            settings[key] = _parsed(key, value)
        else:
            raise unknown_key("--set", key, [PROFILE, *SETTING_TYPES])
    if profile is not None and profile not in _PROFILES:
        raise UserError(f"--set profile={profile} is not allowed; choose one of {', '.join(_PROFILES)}.")
    return Choice(profile, settings=settings)


def _parsed(key: str, text: str) -> Any:
    kind = SETTING_TYPES[key]
    try:
        return _BOOLS[text.lower()] if kind is bool else kind(text)
    except (ValueError, KeyError) as error:
        raise UserError(f"--set {key}={text} {wrong_type((kind,))}.") from error


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


class _Player:
    """One sitting of a recording, played to the controller that the run had, going on from `before`'s."""

    def __init__(self, sitting: RecordedSitting, choice: Choice, before: _Player | None) -> None:
        self.sitting = sitting
        self.step = sitting.first_step
        self._config = _config(sitting, choice, before)
        self.control = self._control(before)
        self.result: Replay = before.result if before is not None else Replay(self.profile, self.settings)
        if before is not None and not _forgets(sitting):
            self.control.load_state_dict(before.control.state_dict(), self.step)
        self.result.profile, self.result.config = self.profile, self.settings
        self.control.keep_snapshot(at_any_rate=True)

    @property
    def profile(self) -> str:
        """Who decides."""
        return self._config.profile

    @property
    def scheduler(self) -> AdaptiveLRScheduler:
        """The controller's."""
        assert self.control.scheduler is not None, "a replay is of a profile with a scheduler"
        return self.control.scheduler

    @property
    def settings(self) -> AdaptiveLRConfig:
        """Those in force."""
        return self.scheduler.config

    def play(self) -> bool:
        """Feed all steps; False when the ladder of profile `auto` would have ended the run before."""
        steps = sorted(s for s in self.sitting.steps if s > self.control.plan.first_step)
        for step, anneal in self.sitting.finishes.items():
            if steps and step < steps[0]:  # asked for in the climb
                self.control.follow_finish(anneal)
        for step in steps:
            try:
                self._feed(self.sitting.steps[step])
            except RunError as error:
                self.result.notes.append(f"Profile auto would have stopped the run at step {step}: {error}")
                return False
            if step in self.sitting.finishes:
                self.control.follow_finish(self.sitting.finishes[step])
            if step in self.sitting.replaced:
                self.control.forget_reference()
                self.control.keep_snapshot(at_any_rate=True)
            if step in self.sitting.checkpoints:
                self.control.keep_snapshot()
        return True

    def _feed(self, seen: Step) -> None:
        self.step = seen.step
        lr = self.control.before_step(seen.step)[0]
        if seen.step > self.control.plan.warmup_end:
            self.result.steps.append(seen)
            self.result.lrs.append(lr)
        overflow = self.sitting.scales_loss and math.isfinite(seen.ce) and math.isnan(seen.grad_norm)
        self.control.after_step(seen.step, seen.ce, None if overflow else seen.grad_norm, self.control.skip_above)

    def _hear(self, record: dict[str, Any]) -> None:
        """Take an event of the controller."""
        if record["event"] == "adaptive_lr_adjustment":
            self.result.adjustments.append(adjustment_from(record, self.step, None))

    def _control(self, before: _Player | None) -> LearningRateControl:
        """The run's own controller, with nothing to rewind: the losses behind a rewind are those recorded."""
        sitting, config = self.sitting, self.sitting.config
        self.begun_at = _begun_at(sitting, before)
        given = Given(self._config, config.steps, self.begun_at, config.use_moe)
        if before is None:
            plan = make_plan(given, sitting.search, sitting.search_counted)
        else:
            plan = resumed_plan(given, before.control.state_dict(), self.step, _forgets(sitting))
        groups = [{"lr": plan.base_lr, "initial_lr": plan.base_lr, "role": r} for r in (BASE, *self._config.groups)]
        return LearningRateControl(plan, SimpleNamespace(param_groups=groups), self._hear, _Untouched, self.step)


def _forgets(sitting: RecordedSitting) -> bool:
    """Whether it began afresh, if it is a resumed one."""
    return sitting.init is not None and sitting.restored_lr is None


def _begun_at(sitting: RecordedSitting, before: _Player | None) -> float:
    """The rate its optimizer was built with; of a log of before, whose default was another, as the log has it."""
    if sitting.config.lr is not None or sitting.config.adaptive_lr_config is not None:
        return sitting.config.start_lr
    if before is not None:
        return before.begun_at
    recorded = number(sitting.init or {}, "initial_lr")
    unsearched = sitting.search is None or sitting.search.lr is None
    return recorded if unsearched and recorded > 0 else sitting.config.start_lr


class _Untouched:
    """Stands for a copy of weights that a replay has not."""

    def restore(self) -> None:
        """Bring nothing back."""


def _config(sitting: RecordedSitting, choice: Choice, before: _Player | None) -> AutoLRConfig:
    """How the recorded run steered, with what the choice puts in its place."""
    recorded = sitting.config
    chosen: dict[str, Any] = {"auto_adjust_lr": True}
    if choice.profile is not None:
        chosen["adaptive_lr_profile"] = choice.profile
    if choice.settings_file is not None:
        chosen["adaptive_lr_config"] = choice.settings_file
    config = replace(recorded, **chosen)
    try:
        made = auto_lr_config(config, choice.settings)
    except UserError as error:
        if choice.settings_file is None and recorded.adaptive_lr_config is not None:
            raise UserError(f"The run's settings file: {error} Or give another with --adaptive-lr-config.") from error
        raise
    return replace(made, warmup_steps=_warmup_steps(sitting, before))


def _warmup_steps(sitting: RecordedSitting, before: _Player | None) -> int | None:
    """Length of the recorded warm-up; None where the log does not tell, and it is derived."""
    first = before.control.plan.first_step if before is not None else sitting.search_counted
    if sitting.warmup_complete is not None:
        return sitting.warmup_complete - first
    logged = number(sitting.init or {}, "warmup_steps")
    if not math.isfinite(logged):
        return sitting.config.warmup_steps
    # A sitting that goes on in the warm-up logs what is left of it.
    return int(logged) + (sitting.first_step - first if before is not None and logged > 0 else 0)


def _likeness(recording: Recording, player: _Player, choice: Choice) -> list[str]:
    """Sentences on what differs from the recording for another reason than `choice`."""
    notes = []
    logged = [step.step for step in recording.ordered_steps()]
    if (missing := logged[-1] - logged[0] + 1 - len(logged)) > 0:
        notes.append(f"{missing} steps are missing from the log; decisions behind them may differ for that reason.")
    if any(sitting.init is None for sitting in recording.sittings):
        notes.append("The rate was fixed in a part of the recording; the replay shows what it would have been.")
    if any(a.decision in ("rewind_decrease", "search_decrease") for a in player.result.adjustments):
        notes.append("A rewind cannot be replayed: the losses behind it are those recorded.")
    init = player.sitting.init
    if init is not None and choice.settings_file is None and not choice.settings:
        names = ["lr_min", "lr_max", "window_size"]
        if len(recording.sittings) == 1:  # later ones begin at what was learned before
            names.append("initial_lr")
        changed = [name for name in names if init.get(name) != getattr(player.result.config, name)]
        if changed:
            notes.append(f"{', '.join(changed)} differ from the recording: has its settings file been changed since?")
    return notes
