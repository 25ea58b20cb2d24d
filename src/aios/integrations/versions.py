"""The frameworks' versions that these adapters are tested with, and what is said where one is missing or another."""

from __future__ import annotations

import re
import warnings
from importlib import metadata
from typing import NamedTuple

from aios.extras import remedy


class Tested(NamedTuple):
    """A range of versions."""

    first: str
    """The oldest one."""
    below: str
    """The first one above that was not tried."""
    extra: str
    """Of this distribution: what installs the framework."""


TESTED = {
    "transformers": Tested("5.23", "5.25", "hf"),
    "accelerate": Tested("1.15", "1.16", "hf"),
    "lightning": Tested("2.6", "2.7", "lightning"),
}


def require(framework: str) -> None:
    """Raise ModuleNotFoundError, with what to install, where `framework` is missing; warn of an untested version."""
    try:
        version = metadata.version(framework)
    except metadata.PackageNotFoundError:
        raise ModuleNotFoundError(
            f"this part of aios.integrations needs {framework}: {remedy(TESTED[framework].extra)}"
        ) from None
    remark = untested(framework, version)
    if remark is not None:
        warnings.warn(remark, stacklevel=3)


def untested(framework: str, version: str) -> str | None:
    """A sentence where `version` lies outside the tested range; None inside."""
    tested = TESTED[framework]
    if _numbers(tested.first) <= _numbers(version) < _numbers(tested.below):
        return None
    span = f"from {tested.first} on, below {tested.below}"
    return f"{framework} {version} has not been tried with AutoLR; tested are versions {span}"


def _numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
