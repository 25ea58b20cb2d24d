"""What the form holds: a text for each field of `TrainingConfig`, turned into a config or into problems. No Tk here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

from aios.errors import UserError
from aios.gui.earlier_runs import foresee
from aios.gui.wording import fields_named, in_window_words, label_of
from aios.settings.config import LEARNING_RATE, TrainingConfig, field_types, path_fields
from aios.settings.flag_values import allowed_types
from aios.settings.forecast import Forecast
from aios.settings.preflight import check_folders, check_inputs

Text = str | bool
"""What a field shows: a text, or whether it is ticked."""

Kind = Literal["text", "choice", "switch", "file", "dataset", "folder"]

BUNDLED_TEXT = "Bundled text (King James Bible)"
"""What the dataset field shows for None."""

RATE_FIELDS = ("auto_adjust_lr", "lr")
_NOT_IN_FORM = ("resume", "adaptive_lr_reset_state")
MAIN_FIELDS = tuple(
    f.name
    for f in dataclasses.fields(TrainingConfig)
    if f.metadata["main"] and f.name not in RATE_FIELDS + _NOT_IN_FORM
)
_WITH_AUTO_ONLY = ("adaptive_lr_profile", "adaptive_lr_config")
_DATASETS = ("dataset_file", "eval_file")
_NEW_FILES = ("log_file", "stop_file")  # no dialog of files that are there leads to one
_UNSET = {"dataset_file": BUNDLED_TEXT}
_AUTOMATIC = "automatic"  # None of a field that is else on or off
_ON_OFF = {"on": True, "off": False}


@dataclass(frozen=True)
class FieldSpec:
    """How one field of `TrainingConfig` appears in the form."""

    name: str
    """The config field's name."""
    label: str
    """What stands beside it."""
    help: str
    """The tooltip: what the command line's help says."""
    kind: Kind
    """Which widget it gets."""
    choices: tuple[str, ...]
    """What a choice offers."""
    panel: str
    """The group of settings it belongs to."""


@cache
def field_specs() -> dict[str, FieldSpec]:
    """Every field that the form shows, by name, in the order of the config."""
    fields = (f for f in dataclasses.fields(TrainingConfig) if f.name not in _NOT_IN_FORM)
    return {f.name: _spec(f) for f in fields}


def advanced_fields() -> dict[str, list[str]]:
    """Names of the fields behind folds, by group."""
    groups: dict[str, list[str]] = {LEARNING_RATE: []}
    for spec in field_specs().values():
        if spec.name not in MAIN_FIELDS + RATE_FIELDS:
            groups.setdefault(spec.panel, []).append(spec.name)
    return groups


def _spec(f: dataclasses.Field[Any]) -> FieldSpec:
    kind, choices = _kind_of(f.name)
    return FieldSpec(f.name, label_of(f.name), in_window_words(f.metadata["help"]), kind, choices, f.metadata["panel"])


def _kind_of(name: str) -> tuple[Kind, tuple[str, ...]]:
    if name in _DATASETS:
        return "dataset", ()
    if name in path_fields() and name not in _NEW_FILES:
        return "file" if path_fields()[name] == "FILE" else "folder", ()
    kinds, choices = allowed_types(field_types()[name])
    if kinds == (bool,):
        return "switch", ()
    if bool in kinds:
        return "choice", (_AUTOMATIC, *_ON_OFF)
    return ("choice", tuple(map(str, choices))) if choices else ("text", ())


def show_value(name: str, value: Any) -> Text:
    """What field `name` shows for a config value; the inverse of `read_text`."""
    if isinstance(value, bool) and field_specs()[name].kind != "switch":
        return "on" if value else "off"
    if isinstance(value, bool):
        return value
    if value is None:
        return _AUTOMATIC if field_specs()[name].kind == "choice" else _UNSET.get(name, "")
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def read_text(name: str, text: Text) -> Any:
    """The config value that `text` means; a text that is no number stays one, for `TrainingConfig` to refuse."""
    if isinstance(text, bool):
        return text
    text = text.strip()
    kinds, _ = allowed_types(field_types()[name])
    if bool in kinds:
        return _ON_OFF.get(text)
    if type(None) in kinds and text in ("", _UNSET.get(name)):
        return None
    for number in (int, float):
        if number in kinds:
            try:
                return number(text)
            except ValueError:
                return text
    return text


@dataclass(frozen=True)
class FormCheck:
    """What is to be said about the form."""

    config: TrainingConfig | None
    """What it means; None where there are problems."""
    problems: Mapping[str, str]
    """By field: what is wrong, one sentence."""
    general: str | None = None
    """A problem that belongs to no single field."""
    forecast: Forecast | None = None
    """What the run will be, where that is known."""

    @property
    def reason(self) -> str | None:
        """Why training cannot start; None when it can."""
        for name, problem in self.problems.items():
            return problem if f"“{label_of(name)}”" in problem else f"{label_of(name)}: {problem}"
        return self.general


class FormModel:
    """The form's texts, by field name."""

    def __init__(self, given: Mapping[str, Any] | None = None) -> None:
        self.texts: dict[str, Text] = {}
        self.load(given or {})

    def load(self, given: Mapping[str, Any]) -> None:
        """Show the config values in `given`, and the defaults in all other fields."""
        defaults = {f.name: f.default for f in dataclasses.fields(TrainingConfig)}
        self.texts = {name: show_value(name, given.get(name, defaults[name])) for name in field_specs()}

    def values(self) -> dict[str, Any]:
        """The config values that differ from their defaults; those without effect are left out."""
        defaults = {f.name: f.default for f in dataclasses.fields(TrainingConfig)}
        values = {name: read_text(name, text) for name, text in self.texts.items()}
        idle = () if self.texts["auto_adjust_lr"] else _WITH_AUTO_ONLY
        return {name: value for name, value in values.items() if value != defaults[name] and name not in idle}

    def check(self) -> FormCheck:
        """Check the values against each other; quick enough for every key pressed."""
        return find_problems(self.values(), lambda values: TrainingConfig(**values))


def check_on_disk(values: Mapping[str, Any]) -> FormCheck:
    """Check `values`, and whether their files and folders can be used; may take as long as the disk does."""
    foreseen: Forecast | None = None

    def attempt(attempted: Mapping[str, Any]) -> TrainingConfig:
        nonlocal foreseen
        config = TrainingConfig(**attempted)
        check_inputs(config)
        check_folders(config)
        foreseen = foresee(config)  # reads on in the text, and may find damage
        return config

    check = find_problems(values, attempt)
    return replace(check, forecast=foreseen) if check.config is not None else check


def find_problems(values: Mapping[str, Any], attempt: Callable[[Mapping[str, Any]], TrainingConfig]) -> FormCheck:
    """Collect the problems that `attempt` has with `values`, one field after the other.

    A field that was refused goes back to its default, so that the next attempt finds the next problem.
    """
    problems: dict[str, str] = {}
    left = dict(values)
    while True:
        try:
            config = attempt(left)
        except UserError as error:
            blamed = _blamed(str(error), left)
            if blamed is None:
                return FormCheck(None, problems, None if problems else in_window_words(str(error)))
            problems[blamed] = in_window_words(str(error))
            del left[blamed]
        else:
            return FormCheck(None if problems else config, problems)


def _blamed(sentence: str, values: Mapping[str, Any]) -> str | None:
    """The field, of those that are not at their defaults, that an error is about."""
    for name in fields_named(sentence):
        if name in values:
            return name
    for name, value in values.items():
        if name in path_fields() and str(value) in sentence:
            return name
    return None
