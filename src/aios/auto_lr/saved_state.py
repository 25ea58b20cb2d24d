"""What a saved state has to look like: checked as a whole, before any of it is taken over."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aios.errors import shown

LARGEST = 2**53
"""Counts stay below it: up to there every whole number is a float as well."""
_HIGHEST = 1e30  # of rates and losses: what is multiplied with them stays finite


@dataclass(frozen=True)
class Kind:
    """What an entry of a state may be."""

    allowed: str
    """In words, after "must be"."""
    fits: Callable[[Any], bool]
    """Whether a value is of the kind; never raises, whatever it is given."""


def _is_number(value: object) -> bool:
    return type(value) is float or (type(value) is int and abs(value) <= LARGEST)


def between(low: float, high: float) -> Kind:
    """A finite number from `low` to `high`."""
    return Kind(f"a number from {low:g} to {high:g}", lambda v: _is_number(v) and low <= v <= high)


COUNT = Kind("a whole number from 0 to 2^53", lambda v: type(v) is int and 0 <= v <= LARGEST)
POSITIVE_COUNT = Kind("a count > 0", lambda v: COUNT.fits(v) and v > 0)
NUMBER = between(-_HIGHEST, _HIGHEST)
RATE = between(1 / _HIGHEST, _HIGHEST)
LOSS = Kind("a number", _is_number)
"""Of a step that may have gone wrong: NaN and infinity, too."""
FLAG = Kind("true or false", lambda v: type(v) is bool)
MAPPING = Kind("a mapping", lambda v: isinstance(v, Mapping))


def optional(kind: Kind) -> Kind:
    """`kind`, or None."""
    return Kind(f"{kind.allowed}, or None", lambda v: v is None or kind.fits(v))


def series(kind: Kind) -> Kind:
    """A list of them."""
    return Kind(f"a list, each entry {kind.allowed}", lambda v: type(v) is list and all(map(kind.fits, v)))


def row(*kinds: Kind) -> Kind:
    """A list (or tuple) of exactly these."""

    def fits(value: Any) -> bool:
        listed = isinstance(value, (list, tuple)) and len(value) == len(kinds)
        return listed and all(kind.fits(v) for kind, v in zip(kinds, value, strict=True))

    return Kind(f"a list of {len(kinds)}: " + ", ".join(kind.allowed for kind in kinds), fits)


def by_name(kind: Kind) -> Kind:
    """A mapping from names to them."""

    def fits(value: Any) -> bool:
        return isinstance(value, Mapping) and all(type(k) is str and kind.fits(v) for k, v in value.items())

    return Kind(f"a mapping from names, each value {kind.allowed}", fits)


def check_state(what: str, state: object, entries: Mapping[str, Kind], may_lack: Collection[str] = ()) -> None:
    """Raise ValueError, naming entry and value, unless `state` is a mapping that holds `entries`, each of its kind.

    Others may stand beside them. Those in `may_lack` may be missing: states from before they were saved.
    """
    if not isinstance(state, Mapping):
        raise ValueError(f"{what} = {shown(state)} is not allowed: must be a mapping, as state_dict() returns it")
    for name, kind in entries.items():
        if name not in state:
            if name in may_lack:
                continue
            raise ValueError(f"{what} has no {name!r}: is it the state_dict() of this version?")
        if not kind.fits(state[name]):
            raise ValueError(f"{what}: {name} = {shown(state[name])} is not allowed: must be {kind.allowed}")


def check_version(what: str, state: Mapping[str, Any], version: int) -> None:
    """Raise ValueError unless `state` was saved by `version`."""
    found = state.get("version")
    if type(found) is not int or found != version:
        raise ValueError(f"{what}: version = {shown(found)} is not allowed: must be {version}")
