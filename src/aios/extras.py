"""What installs the packages that only some parts need: the extras of this distribution. Nothing is imported here."""

from __future__ import annotations

DISTRIBUTION = "aios-autolr"
_OF_COMMANDS = {"matplotlib": "plot"}
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
