"""The packages that only some parts need, and what installs them: the extras of this distribution."""

from __future__ import annotations

import importlib
from types import ModuleType

from aios.errors import UserError

DISTRIBUTION = "aios-autolr"
_OF_COMMANDS = {"PIL": "gui", "matplotlib": "plot", "pyarrow": "data", "zstandard": "data"}
"""The extra of a package that a command imports, by its import name; all others belong to `hrm`."""


def remedy(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing(error: ModuleNotFoundError) -> str | None:
    """The sentence for a package of somebody else's that is not installed; None where a module of ours is missing."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "aios"):
        return None
    return f"this needs the package {package}, which is not installed: {remedy(_OF_COMMANDS.get(package, 'hrm'))}"


def load(module: str) -> ModuleType:
    """Import a module of an optional package where it is first needed.

    Raises:
        UserError: naming what to install, where it is not.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        sentence = missing(error)
        if sentence is None:
            raise
        raise UserError(sentence) from error
