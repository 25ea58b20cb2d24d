"""Settings as a person writes them into a .toml, .yaml or .json file: from text to plain values, errors by name."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from aios.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": yaml.safe_load,
    ".yml": yaml.safe_load,
    ".json": json.loads,
}
"""How a file is read, by its suffix in lower case."""
# TOML and JSON errors are ValueErrors; brackets nested without end exhaust the recursive parsers.
_SYNTAX_ERRORS = (ValueError, yaml.YAMLError, RecursionError)


def parse_settings_file(path: Path) -> Any:
    """What `path` holds, as plain values; an empty YAML file is None.

    Raises:
        UserError: naming the file, for an unknown suffix or a file that cannot be read or parsed.
    """
    parser = PARSERS.get(path.suffix.lower())
    if parser is None:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; use one of {', '.join(PARSERS)}.")
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


def unknown_key(place: object, key: object, known: Collection[str]) -> UserError:
    """The error for a key at `place` that is none of those `known`; names the nearest one."""
    near = difflib.get_close_matches(str(key), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}."
    return UserError(f"{place}: unknown key {key!r}; {hint}")


def text_as_number(text: str) -> float | str:
    """`text` as a number if it is one: YAML 1.1 reads 5e-5 (no dot) as a string."""
    try:
        return float(text)
    except ValueError:
        return text
