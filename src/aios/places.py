"""The folders of the user that the program chooses by itself, where nobody names one."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

_NAME = "aios"


def cache_folder() -> Path:
    """Where things lie that can be made again: `XDG_CACHE_HOME/aios`, else where the system keeps caches."""
    return _choose("XDG_CACHE_HOME", platformdirs.user_cache_path(_NAME, appauthor=False), ".cache")


def config_folder() -> Path:
    """Where settings lie: `XDG_CONFIG_HOME/aios`, else where the system keeps them."""
    return _choose("XDG_CONFIG_HOME", platformdirs.user_config_path(_NAME, appauthor=False), ".config")


def _choose(variable: str, of_system: Path, before: str) -> Path:
    """The variable wins, on every system. A folder of the time when all systems had the one of Linux stays in use."""
    if base := os.environ.get(variable):
        return Path(os.path.expanduser(base)) / _NAME
    old = Path(os.path.expanduser("~")) / before / _NAME
    return old if old.is_dir() and not of_system.is_dir() else of_system
