"""One run of profile `auto` for all tests of this folder that look at what such a run leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_process import AUTO, train


@pytest.fixture(scope="session")
def climbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain whose run found its rate by climbing; what it said on the terminal lies beside it."""
    folder = tmp_path_factory.mktemp("climbed")
    done = train(folder, *AUTO)
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder
