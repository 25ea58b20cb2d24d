"""Settings as a person writes them into a .toml, .yaml or .json file: from text to plain values, errors by name."""

from __future__ import annotations

import difflib
import textwrap
import tomllib
from collections.abc import Callable, Collection, Hashable
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from aios.core.foreign_json import parse_json, refuse_duplicates
from aios.errors import UserError, one_line, shown
from aios.files import NotPlainError, read_at_most

MAX_BYTES = 64 * 1024
"""Largest file of settings that is read; a long one is a few thousand bytes."""
_REASON_CHARS = 200
_MAX_DEPTH = 50
"""Brackets of YAML within one another: its scanner takes seconds for a thousand, settings have two or three."""


class _PlainYaml(yaml.SafeLoader):
    """YAML of plain values: aliases can stand for data of any size, tags for types that nothing here expects."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node; refuses an alias and an explicit tag."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError(f"*{event.anchor} is an alias; write the value itself")
        if getattr(event, "tag", None) is not None:
            raise yaml.YAMLError(f"{event.tag} is a tag; write the value without it")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping; refuses a key that is there twice."""
        refuse_duplicates(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


def _parse_yaml(text: str) -> Any:
    if _depth(text) > _MAX_DEPTH:
        raise yaml.YAMLError(f"brackets within brackets, more than {_MAX_DEPTH} deep")
    return yaml.load(text, _PlainYaml)


def _depth(text: str) -> int:
    """How deep brackets lie within one another at most, those in strings and comments counted as well."""
    steps = (1 if char in "[{" else -1 for char in text if char in "[]{}")
    return max(accumulate(steps, lambda depth, step: max(0, depth + step), initial=0))


PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
    ".json": parse_json,
}
"""How a file is read, by its suffix in lower case."""
# TOML and JSON errors are ValueErrors; brackets nested without end exhaust the recursive parsers, and YAML 1.1 reads
# 1:2:3.4 to base 60, which can overflow.
_SYNTAX_ERRORS = (ValueError, OverflowError, yaml.YAMLError, RecursionError)


def read_small_file(path: Path) -> bytes:
    """The bytes of a file of settings, at most `MAX_BYTES`.

    Raises:
        UserError: naming the file, when it cannot be read, is no regular file (a pipe or device might never end), or
            is larger.
    """
    try:
        content = read_at_most(path, MAX_BYTES)
    except NotPlainError as error:
        raise UserError(f"{path}: is no regular file but a folder, pipe or device; give a file.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path.") from error
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}: is larger than {MAX_BYTES} bytes, too large for settings; check the path.")
    return content


def parse_settings_file(path: Path) -> Any:
    """What `path` holds, as plain values; an empty YAML file is None.

    Raises:
        UserError: naming the file, for an unknown suffix or a file that cannot be read or parsed.
    """
    parser = PARSERS.get(path.suffix.lower())
    if parser is None:
        raise UserError(f"{path}: unknown suffix {path.suffix!r}; use one of {', '.join(PARSERS)}.")
    try:
        text = read_small_file(path).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    try:
        return parser(text)
    except _SYNTAX_ERRORS as error:
        reason = one_line(error, _REASON_CHARS)
        raise UserError(f"{path}: not valid {path.suffix[1:]} ({reason}); correct the syntax.") from error


def is_yaml(path: Path) -> bool:
    """Whether a file is read as YAML."""
    return PARSERS.get(path.suffix.lower()) is _parse_yaml


def unknown_key(place: object, key: object, known: Collection[str]) -> UserError:
    """The error for a key at `place` that is none of those `known`; names the nearest one."""
    near = difflib.get_close_matches(str(key)[:_REASON_CHARS], known, n=1)
    hint = (
        f"did you mean {near[0]!r}?"
        if near
        else f"known keys: {textwrap.shorten(', '.join(known), _REASON_CHARS, placeholder=' ...')}."
    )
    return UserError(f"{place}: unknown key {shown(key)}; {hint}")
