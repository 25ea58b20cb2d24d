"""Disks of a few kilobytes to fill, for tests: in memory, mounted where the machine lets a test mount them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SmallDisk = Callable[[str], Path]
"""Mounts a new disk of a size such as `64k` and returns its folder."""


def mount_or_skip(folder: Path, size: str) -> Path:
    """A disk of `size` at `folder`; skips the test where none can be mounted."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "aios-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no disk can be filled here: only root may mount one, on Linux")
    return folder
