"""A virtual screen for the tests that open the window, and a folder with settings of a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from desktop import Screen

TINY_SETTINGS = """
dataset_file = "{dataset}"
hidden_size = 32
num_heads = 2
h_layers = 1
l_layers = 1
h_cycles = 1
l_cycles = 1
halt_max_steps = 1
max_seq_len = 32
batch_size = 4
eval_batches = 2
device = "cpu"
brain_name = "first"
bundle_dir = "brains"
"""


@pytest.fixture(scope="session")
def screen() -> Iterator[Screen]:
    """One screen of 1280 x 800 for all."""
    with Screen() as screen:
        yield screen


@pytest.fixture
def home(tmp_path: Path, psalms: Path) -> Path:
    """A folder in which a window was closed with settings of a tiny model on a real file."""
    config = tmp_path / "config" / "aios"
    config.mkdir(parents=True)
    (config / "training.toml").write_text(TINY_SETTINGS.format(dataset=psalms), encoding="utf-8")
    return tmp_path
