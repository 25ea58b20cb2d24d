"""Settings of the adaptive learning rate from a .toml, .yaml or .json file."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig
from aios.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_SECTION = "adaptive_lr"
_TYPES: dict[str, type] = {field.name: type(field.default) for field in fields(AdaptiveLRConfig)}
_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number"}
_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".json": json.loads,
}
_SYNTAX_ERRORS = (ValueError, yaml.YAMLError)  # TOML and JSON errors are ValueErrors


def load_adaptive_lr_file(path: str | Path) -> dict[str, Any]:
    """The settings in `path`: AdaptiveLRConfig fields, optionally under the key `adaptive_lr`.

    Raises UserError naming the file, and the key where there is one: for a file that cannot be read or parsed,
    an unknown suffix, an unknown key or a value of the wrong type. Ranges are checked by `build_config`.
    """
    path = Path(path)
    data = _parse(path)
    if isinstance(data, dict) and list(data) == [_SECTION]:
        data = data[_SECTION]
    data = {} if data is None else data  # an empty YAML file or section
    if not isinstance(data, dict):
        raise UserError(f"{path}: found {data!r} where settings belong; see config/adaptive_lr.toml.")
    return {key: _typed(path, key, value) for key, value in data.items()}


def build_config(
    path: str | Path | None,
    base_lr: float | None,
    steps: int,
    use_moe: bool,
    bounds: tuple[float, float] | None = None,
) -> AdaptiveLRConfig:
    """The settings of a run: derived from its learning rate and length; those in the file, if any, win.

    `bounds` are (lr_min, lr_max) as measured by a search; a file that sets a rate of its own replaces them.

    Raises UserError for a bad file, or for values that are out of range or contradict each other.
    """
    overrides = {} if path is None else load_adaptive_lr_file(path)
    if bounds is not None and not {"initial_lr", "lr_min", "lr_max"} & overrides.keys():
        overrides |= {"lr_min": bounds[0], "lr_max": bounds[1]}
    try:
        return AdaptiveLRConfig.from_base_lr(base_lr, steps, use_moe, **overrides)
    except (ValueError, OverflowError) as error:
        place = "adaptive learning rate" if path is None else path
        raise UserError(f"{place}: {error}; correct that value.") from error


def _parse(path: Path) -> Any:
    parser = _PARSERS.get(path.suffix.lower())
    if parser is None:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; use one of {', '.join(_PARSERS)}.")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    try:
        return parser(text)
    except _SYNTAX_ERRORS as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not valid {path.suffix[1:]} ({reason}); correct the syntax.") from error


def _typed(path: Path, key: Any, value: Any) -> Any:
    """`value` if it has the type of setting `key`; a whole number will do for a number."""
    if key not in _TYPES:
        near = difflib.get_close_matches(str(key), _TYPES, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_TYPES)}."
        raise UserError(f"{path}: unknown key {key!r}; {hint}")
    kind = _TYPES[key]
    if kind is float and isinstance(value, str) and path.suffix.lower() in (".yaml", ".yml"):
        value = _yaml_number(value)
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
        raise UserError(f"{path}: {key} = {value!r} has the wrong type; write {_TYPE_NAMES[kind]}.")
    return value


def _yaml_number(text: str) -> float | str:
    """`text` as a number if it is one: YAML 1.1 reads 5e-5 (no dot) as a string."""
    try:
        return float(text)
    except ValueError:
        return text
