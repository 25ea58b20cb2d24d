"""Settings that are numbers in a range: one check, in one wording, for all configs of this package."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, NamedTuple

from aios.errors import shown


class Range(NamedTuple):
    """The values that a setting may have."""

    low: float
    """The least value."""
    high: float = math.inf
    """The greatest value, itself allowed."""
    low_open: bool = False
    """Whether `low` itself is refused."""

    def __contains__(self, value: Any) -> bool:
        return self.low <= value <= self.high and not (self.low_open and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"{'>' if self.low_open else '>='} {self.low:g}"
        return f"{'above' if self.low_open else 'from'} {self.low:g}{', up' if self.low_open else ''} to {self.high:g}"


def check_number(name: str, value: Any, allowed: Range, whole: bool = False) -> None:
    """Raise ValueError, naming field, value and what is allowed, unless `value` is a finite number in that range."""
    is_kind = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (is_kind and abs(value) <= sys.float_info.max and value in allowed):
        kind = "whole" if whole else "finite"
        raise ValueError(f"{name} = {shown(value)} is not allowed: must be a {kind} number {allowed}")


def check_numbers(config: Any, ranges: Mapping[str, Range]) -> None:
    """`check_number` for each of `ranges` in a dataclass.

    A field must be whole if its default is, and may be None if its default is.
    """
    defaults = {setting.name: setting.default for setting in fields(config)}
    for name, allowed in ranges.items():
        value = getattr(config, name)
        if not (value is None and defaults[name] is None):
            check_number(name, value, allowed, whole=type(defaults[name]) is int)
