"""The settings of a run as a file: what `--config FILE` reads, and what the window exports and imports.

Keys are the fields of `TrainingConfig`, with underscores or dashes; what a file leaves out keeps its default.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from aios.errors import UserError, shown
from aios.files import replace_file
from aios.places import expanded
from aios.settings.config import TrainingConfig, field_types
from aios.settings.flag_values import allowed_types, typed
from aios.settings.settings_file import is_yaml, parse_settings_file, unknown_key


def load_config_file(path: str | Path) -> dict[str, Any]:
    """The settings in `path` (.toml, .yaml, .json) by field name; relative paths in it are the current folder's.

    Raises:
        UserError: naming the file, and the key where there is one: for a file that cannot be read or parsed, an
            unknown key, a key given twice or a value of the wrong type. Ranges are `TrainingConfig`'s to check.
    """
    path = expanded(path)
    data = parse_settings_file(path)
    data = {} if data is None else data  # an empty YAML file
    if not isinstance(data, dict):
        raise UserError(f"{path}: found {shown(data)} where settings belong; write one `name = value` for each.")
    settings: dict[str, Any] = {}
    for key, value in data.items():
        name = str(key).replace("-", "_")
        if name not in field_types():
            raise unknown_key(path, key, field_types())
        if name in settings:
            raise UserError(f"{path}: {shown(key)} is there twice, with a dash and with an underscore; leave one out.")
        settings[name] = _typed(path, name, value)
    return settings


def save_config_file(config: TrainingConfig, path: str | Path) -> None:
    """Write what in `config` differs from the defaults, in the format that the suffix of `path` names.

    The file is complete or not there at all; one that was there is replaced.

    Raises:
        UserError: for an unknown suffix, a folder that cannot be written in, or text that UTF-8 cannot hold.
    """
    path = Path(path)
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; use one of {', '.join(_WRITERS)}.")
    changed = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    changed = {f.name: changed[f.name] for f in dataclasses.fields(config) if changed[f.name] != f.default}
    try:
        text = write(changed).encode()
        replace_file(path, lambda file: file.write(text))
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another place.") from error
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: {shown(error.object)} cannot be written as UTF-8; rename it.") from error


def _toml(settings: dict[str, Any]) -> str:
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in settings.items())


def _toml_value(value: bool | float | str) -> str:
    """A TOML literal: JSON's are TOML's too, but for DEL, which TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


_WRITERS: dict[str, Callable[[dict[str, Any]], str]] = {
    ".toml": _toml,
    ".yaml": lambda settings: yaml.safe_dump(settings, sort_keys=False),
    ".yml": lambda settings: yaml.safe_dump(settings, sort_keys=False),
    ".json": lambda settings: json.dumps(settings, indent=2) + "\n",
}


def _typed(path: Path, name: str, value: Any) -> Any:
    """`value` if it has the type of field `name`; a whole number will do for a number."""
    kinds, choices = allowed_types(field_types()[name])
    if choices:
        if isinstance(value, str) and value in choices:
            return value
        raise UserError(f"{path}: {name} = {shown(value)} is not allowed; choose one of {', '.join(choices)}.")
    try:
        return typed(value, kinds, yaml=is_yaml(path))
    except ValueError as error:
        raise UserError(f"{path}: {name} = {shown(value)} {error}.") from error
