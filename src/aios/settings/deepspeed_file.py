"""The user's own file of DeepSpeed settings, read once: what several questions are asked of is one version of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aios.core.foreign_json import parse_json
from aios.errors import UserError, shown
from aios.settings.settings_file import read_small_file

AUTO = "auto"
"""What files written for other trainers say for "as the trainer has it"."""


@dataclass(frozen=True)
class DeepSpeedFile:
    """What the file says, its "auto" entries left out; nothing where there is no file."""

    path: str | None = None
    """As --deepspeed-config names it."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """By key."""

    @classmethod
    def read(cls, path: str | None) -> DeepSpeedFile:
        """The file at `path`; None: there is none.

        Raises:
            UserError: when it cannot be read as a JSON object.
        """
        if path is None:
            return cls()
        try:
            settings = parse_json(read_small_file(Path(path)).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise UserError(f"--deepspeed-config {path} is no valid JSON ({error}); correct it.") from error
        if not isinstance(settings, dict):
            raise UserError(f"--deepspeed-config {path} holds a {type(settings).__name__}; it must hold a JSON object.")
        return cls(path, _without_auto(settings))

    def section(self, *names: str) -> dict[str, Any]:
        """The table at `names`, one within the other; empty where it is not there. The caller's to change.

        Raises:
            UserError: when something else is in its place.
        """
        found: Any = self.settings
        for name in names:
            found = found.get(name) or {}
            if not isinstance(found, dict):
                raise UserError(f"{self.path} sets {name} to {shown(found)}; it must be a JSON object.")
        return dict(found)


def _without_auto(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_auto(v) for key, v in value.items() if v != AUTO}
