"""What all tests share: a private token cache, no network, and a small text that is not the bundled one."""

from __future__ import annotations

import gc
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from small_disk import SmallDisk, mount_or_skip

# A change is refused for what it breaks, not for an example first drawn today (`--hypothesis-profile default` draws).
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


def pytest_collection_finish() -> None:
    """What was imported for the tests stays: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _surroundings(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["AIOS_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["OMP_NUM_THREADS"] = "1"  # models this small only lose by more


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounts a disk of the size given, once; it is gone after the test."""
    folder = tmp_path / "disk"
    yield lambda size: mount_or_skip(folder, size)
    if folder.is_mount():
        subprocess.run(
            ["umount", "--lazy", str(folder)], check=True
        )  # torch leaves a file open that it could not write


@pytest.fixture(scope="session")
def psalms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text file of about 150 kB."""
    path = tmp_path_factory.mktemp("data") / "psalms.txt"
    verse = "The heavens declare the glory of the number {n}, and the firmament sheweth {m} works of his hands.\n"
    path.write_text("".join(verse.format(n=n, m=n * n % 97) for n in range(1500)), encoding="utf-8")
    return path
