"""Home folders: what the system wants, unless a variable names one or one of before is there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
sys.platform = sys.argv[1]
from aios.places import cache_folder, config_folder
print(cache_folder(), config_folder(), sep="\\n")
"""


def folders(home: Path, system: str, **variables: str) -> list[str]:
    """(cache, settings) below `home`, as on that system."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("XDG_")} | {"HOME": str(home)} | variables
    command = [sys.executable, "-c", CODE, system]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=60)
    return [line.removeprefix(f"{home}/") for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ("linux", [".cache/aios", ".config/aios"]),
        ("darwin", ["Library/Caches/aios", "Library/Application Support/aios"]),
    ],
)
def test_each_system_has_its_folders(tmp_path: Path, system: str, expected: list[str]) -> None:
    assert folders(tmp_path, system) == expected


def test_a_folder_of_before_stays_in_use_until_there_is_another(tmp_path: Path) -> None:
    (tmp_path / ".config" / "aios").mkdir(parents=True)
    assert folders(tmp_path, "darwin") == ["Library/Caches/aios", ".config/aios"]
    (tmp_path / "Library" / "Application Support" / "aios").mkdir(parents=True)
    assert folders(tmp_path, "darwin") == ["Library/Caches/aios", "Library/Application Support/aios"]


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_variables_win(tmp_path: Path, system: str) -> None:
    chosen = {"XDG_CACHE_HOME": "~/c", "XDG_CONFIG_HOME": str(tmp_path / "s")}
    assert folders(tmp_path, system, **chosen) == ["c/aios", "s/aios"]
