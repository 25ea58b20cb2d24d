"""What installs the packages that only some parts need: the extras of this distribution. Nothing is imported here."""

from __future__ import annotations

DISTRIBUTION = "aios-autolr"
_EXTRAS = {"accelerate": "hf", "lightning": "lightning", "matplotlib": "plot"}
"""By package, named as it is imported; all others belong to `hrm`, the command line."""


def remedy(extra: str) -> str:
    """The command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def missing(error: ModuleNotFoundError) -> str | None:
    """The sentence for a package of somebody else's that is not installed; None where a module of ours is missing."""
    package = (error.name or "").partition(".")[0]
    if package in ("", "aios"):
        return None
    return f"this needs the package {package}, which is not installed: {remedy(_EXTRAS.get(package, 'hrm'))}"
