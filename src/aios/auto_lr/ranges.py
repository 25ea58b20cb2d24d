"""Settings that are numbers in a closed range: one check, in one wording, for climb, race, rules and ladder."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from aios.errors import shown

Range = tuple[float, float]
"""The least and the greatest value, both allowed."""


def check_number(name: str, value: Any, allowed: Range, whole: bool = False) -> None:
    """Raise ValueError, naming field, value and what is allowed, unless `value` is a number in that range."""
    low, high = allowed
    is_kind = type(value) is int or (type(value) is float and not whole and math.isfinite(value))
    if not (is_kind and low <= value <= high):
        kind, span = "whole" if whole else "finite", f">= {low:g}" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise ValueError(f"{name} = {shown(value)} is not allowed: must be a {kind} number {span}")


def check_numbers(config: Any, ranges: Mapping[str, Range]) -> None:
    """`check_number` for each of `ranges` in a dataclass; whole are fields that have a whole default. A field whose
    default is None may be None."""
    defaults = {setting.name: setting.default for setting in fields(config)}
    for name, allowed in ranges.items():
        value = getattr(config, name)
        if not (value is None and defaults[name] is None):
            check_number(name, value, allowed, whole=type(defaults[name]) is int)
