"""The user's home folder in a path, and the folders in it that the program chooses where nobody names one."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_NAME = "aios"


def expanded(path: str | Path) -> Path:
    """A path as somebody wrote it, with the home folder for a `~` at its beginning: no shell has done it in a file, or
    behind a `=`."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """Where things lie that can be made again: `XDG_CACHE_HOME/aios`, else where the system keeps caches."""
    return _choose("XDG_CACHE_HOME", platformdirs.user_cache_path(_NAME, appauthor=False), ".cache")


def config_folder() -> Path:
    """Where settings lie: `XDG_CONFIG_HOME/aios`, else where the system keeps them."""
    return _choose("XDG_CONFIG_HOME", platformdirs.user_config_path(_NAME, appauthor=False), ".config")


def _choose(variable: str, of_system: Path, before: str) -> Path:
    """The variable wins, on every system. A folder of the time when all systems had the one of Linux stays in use."""
    if base := os.environ.get(variable):
        return expanded(base) / _NAME
    old = expanded("~") / before / _NAME
    return old if old.is_dir() and not of_system.is_dir() else of_system
