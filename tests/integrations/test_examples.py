"""The scripts of docs/examples, run as a user runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "docs" / "examples").glob("*.py"))


def test_they_are_short() -> None:
    assert len(SCRIPTS) == 6
    assert all(len(script.read_text(encoding="utf-8").splitlines()) <= 40 for script in SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_ours_ends_lower_than_the_default(script: Path, tmp_path: Path) -> None:
    _assert_ours_lower(script, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model(tmp_path: Path) -> None:
    _assert_ours_lower(ROOT / "docs" / "examples" / "plain_mnist.py", tmp_path, "--compile")


def _assert_ours_lower(script: Path, tmp_path: Path, *flags: str) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, str(script), *flags],
        env=surroundings,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert run.returncode == 0, run.stderr
    default, ours = re.findall(r"default ([\d.]+), AutoLR ([\d.]+)", run.stdout)[0]
    assert float(ours) < float(default)
