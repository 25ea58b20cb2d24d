"""Settings of the adaptive learning rate from a .toml, .yaml or .json file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig
from aios.auto_lr.param_groups import ADAPTER, BASE, ROLES, ROUTER, GroupSettings
from aios.errors import UserError, shown
from aios.settings.flag_values import typed
from aios.settings.settings_file import is_yaml, parse_settings_file, unknown_key

SETTING_TYPES: Mapping[str, type] = {field.name: type(field.default) for field in fields(AdaptiveLRConfig)}
"""The settings there are, by name."""
_SECTION, _GROUPS = "adaptive_lr", "groups"
_GROUP_TYPES: dict[str, type] = dict.fromkeys((field.name for field in fields(GroupSettings)), float)


def load_adaptive_lr_file(path: str | Path) -> dict[str, Any]:
    """The settings in `path`: AdaptiveLRConfig fields, optionally under the key `adaptive_lr`; those of roles left out.

    Raises UserError naming the file, and the key where there is one: for a file that cannot be read or parsed,
    an unknown suffix, an unknown key or a value of the wrong type. Ranges are checked by `learning_rate`.
    """
    path = Path(path)
    given = {key: value for key, value in _section(path).items() if key != _GROUPS}
    return {key: _typed(path, path, key, value, SETTING_TYPES) for key, value in given.items()}


def load_group_settings(path: str | Path | None) -> dict[str, GroupSettings]:
    """The tables `groups.<role>` in `path`, by role; none without a file.

    Raises UserError naming the file and the table: for an unknown role or key, a value of the wrong type or out of
    range, and as `load_adaptive_lr_file`.
    """
    if path is None:
        return {}
    path = Path(path)
    tables = _table(path, _section(path).get(_GROUPS))
    return {role: _group_settings(path, role, table) for role, table in tables.items()}


def check_roles(path: str | Path | None, use_moe: bool, use_peft: bool) -> None:
    """Raise UserError, with the remedy, where `path` has settings for a role that the run has no parameters of."""
    roles = load_group_settings(path)
    if ROUTER in roles and use_peft:
        raise UserError(f"{path}: groups.{ROUTER} has no effect: --use-peft trains adapters alone; leave one out.")
    if ROUTER in roles and not use_moe:
        raise UserError(f"{path}: groups.{ROUTER} needs a mixture of experts; add --use-moe or leave the table out.")
    if ADAPTER in roles and not use_peft:
        raise UserError(f"{path}: groups.{ADAPTER} needs LoRA adapters; add --use-peft or leave the table out.")


def _section(path: Path) -> dict[str, Any]:
    """What the file holds, or holds under the key `adaptive_lr`."""
    data = parse_settings_file(path)
    return _table(path, data[_SECTION] if isinstance(data, dict) and list(data) == [_SECTION] else data)


def _table(place: object, data: Any) -> dict[str, Any]:
    data = {} if data is None else data  # an empty YAML file or section
    if not isinstance(data, dict):
        raise UserError(f"{place}: found {shown(data)} where settings belong; see config/adaptive_lr.toml.")
    return data


def _group_settings(path: Path, role: Any, table: Any) -> GroupSettings:
    if role not in ROLES:
        raise unknown_key(f"{path}: {_GROUPS}", role, [name for name in ROLES if name != BASE])
    place = f"{path}: {_GROUPS}.{role}"
    if role == BASE:
        raise UserError(f"{place} is no table of its own: base goes by the keys of {_SECTION} itself; move them there.")
    values = {key: _typed(path, place, key, value, _GROUP_TYPES) for key, value in _table(place, table).items()}
    try:
        return GroupSettings(**values)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{place}: {error}; correct that value.") from error


def _typed(path: Path, place: object, key: Any, value: Any, types: Mapping[str, type]) -> Any:
    """`value`, found at `place`, if it has the type of setting `key`; a whole number will do for a number."""
    if key not in types:
        raise unknown_key(place, key, types)
    try:
        return typed(value, (types[key],), yaml=is_yaml(path))
    except ValueError as error:
        raise UserError(f"{place}: {key} = {shown(value)} {error}.") from error
