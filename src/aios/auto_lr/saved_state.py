"""What a saved state has to look like: checked as a whole, before any of it is taken over."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aios.errors import shown

LARGEST = 2**53
"""Counts stay below it: up to there every whole number is a float as well."""
_HIGHEST = 1e30  # rates and losses below it have finite products


@dataclass(frozen=True)
class Kind:
    """What an entry of a state may be."""

    allowed: str
    """In words, after "not"."""
    find_flaw: Callable[[Any], str | None]
    """What is wrong with a value, beginning with where; None when nothing is. Never raises, whatever it is given."""

    def fits(self, value: Any) -> bool:
        """Whether a value is of the kind."""
        return self.find_flaw(value) is None


def plain(allowed: str, fits: Callable[[Any], bool]) -> Kind:
    """The kind of values that are judged as one; `fits` never raises."""
    return Kind(allowed, lambda v: None if fits(v) else f" is {shown(v)}, not {allowed}")


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)


def between(low: float, high: float) -> Kind:
    """A finite number from `low` to `high`."""
    return plain(f"a number from {low:g} to {high:g}", lambda v: _is_number(v) and low <= v <= high)


def whole(at_least: int = 0) -> Kind:
    """A whole number from `at_least` up."""
    return plain(f"a whole number from {at_least} up", lambda v: type(v) is int and at_least <= v <= LARGEST)


def one_of(*allowed: Any) -> Kind:
    """One of `allowed`, of the same type, too."""

    def fits(value: Any) -> bool:
        return any(type(value) is type(a) and value == a for a in allowed)

    return plain(" or ".join(map(str, allowed)), fits)


COUNT = whole()
POSITIVE_COUNT = whole(1)
NUMBER = between(-_HIGHEST, _HIGHEST)
RATE = between(1 / _HIGHEST, _HIGHEST)
LOSS = plain("a number", _is_number)
"""Of a step that may have gone wrong: NaN and infinity, too."""
FINITE = plain("a finite number", lambda v: type(v) in (int, float) and abs(v) <= sys.float_info.max)
POSITIVE = plain("a finite number above 0", lambda v: FINITE.fits(v) and v > 0)
FLAG = plain("true or false", lambda v: type(v) is bool)
TEXT = plain("a string", lambda v: isinstance(v, str))
MAPPING = plain("a mapping", lambda v: isinstance(v, Mapping))
ANYTHING = plain("anything", lambda v: True)
"""Checked elsewhere."""


def optional(kind: Kind) -> Kind:
    """`kind`, or None."""
    return Kind(f"{kind.allowed}, or None", lambda v: None if v is None else kind.find_flaw(v))


def series(kind: Kind, at_least: int = 0, at_most: int | None = None) -> Kind:
    """A list of them, of `at_least` to `at_most`."""

    def judge(value: Any) -> str | None:
        if not isinstance(value, list):
            return f" is a {type(value).__name__}, not a list"
        if len(value) < at_least or (at_most is not None and len(value) > at_most):
            return f" has {len(value)} entries, not {at_least if at_most == at_least else f'{at_least} or more'}"
        flaws = ((i, kind.find_flaw(v)) for i, v in enumerate(value))
        return next((f"[{i}]{flaw}" for i, flaw in flaws if flaw is not None), None)

    return Kind(f"a list, each entry {kind.allowed}", judge)


def row(*kinds: Kind) -> Kind:
    """A list (or tuple) of exactly these."""

    allowed = f"a list of {len(kinds)}: " + ", ".join(kind.allowed for kind in kinds)

    def judge(value: Any) -> str | None:
        if not (isinstance(value, (list, tuple)) and len(value) == len(kinds)):
            return f" is {shown(value)}, not {allowed}"
        flaws = ((i, kind.find_flaw(v)) for i, (kind, v) in enumerate(zip(kinds, value, strict=True)))
        return next((f"[{i}]{flaw}" for i, flaw in flaws if flaw is not None), None)

    return Kind(allowed, judge)


def by_name(kind: Kind) -> Kind:
    """A mapping from names to them."""
    return Kind(f"a mapping from names, each value {kind.allowed}", by_key(TEXT, kind).find_flaw)


def by_key(key: Kind, kind: Kind) -> Kind:
    """A mapping from keys of one kind to values of another."""

    def judge(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return _no_dict(value)
        for name, inner in value.items():
            if (flaw := key.find_flaw(name)) is not None:
                return f" has a key that{flaw}"
            if (flaw := kind.find_flaw(inner)) is not None:
                return f".{shown(name)}{flaw}"
        return None

    return Kind(f"a mapping from {key.allowed}, each value {kind.allowed}", judge)


def record(entries: Mapping[str, Kind], may_lack: Collection[str] = ()) -> Kind:
    """A mapping that holds `entries`, each of its kind; those in `may_lack` may be missing, others stand beside."""

    def judge(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return _no_dict(value)
        missing = next((name for name in entries if name not in value and name not in may_lack), None)
        if missing is not None:
            return f" has no {missing}"
        flaws = ((name, kind.find_flaw(value[name])) for name, kind in entries.items() if name in value)
        return next((f".{name}{flaw}" for name, flaw in flaws if flaw is not None), None)

    return Kind(f"a mapping with {', '.join(entries)}", judge)


def _no_dict(value: object) -> str:
    return f" is a {type(value).__name__}, not a dict"


def check_state(
    what: str, state: object, entries: Mapping[str, Kind], may_lack: Collection[str] = ()
) -> Mapping[str, Any]:
    """`state`, a mapping that holds `entries`, each of its kind; else ValueError, naming entry and value.

    Others may stand beside them. Those in `may_lack` may be missing: states from before they were saved.
    """
    if (flaw := record(entries, may_lack).find_flaw(state)) is not None:
        raise ValueError(f"{what}{flaw}")
    assert isinstance(state, Mapping)  # the record says so
    return state


def check_version(what: str, state: Mapping[str, Any], version: int) -> None:
    """Raise ValueError unless `state` was saved by `version`."""
    found = state.get("version")
    if type(found) is not int or found != version:
        raise ValueError(f"{what}: version = {shown(found)} is not allowed: must be {version}")
