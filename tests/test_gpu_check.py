"""`scripts/gpu_check.py`, as far as a machine without a GPU can tell."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "gpu_check.py"


def check(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(SCRIPT), *arguments], capture_output=True, text=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_it_says_so() -> None:
    done = check()
    assert done.returncode == 2
    assert "There is no CUDA device here" in done.stdout


@pytest.mark.slow
def test_a_brain_is_trained_gone_on_with_and_asked(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    done = check("--device=cpu", "--steps=3", "--only=tiny,plain_tiny,resume,generate", f"--json={told}")
    assert done.returncode == 0, done.stdout
    trained, plain, resumed, asked = json.loads(told.read_text())["results"]
    assert [each["ok"] for each in (trained, plain, resumed, asked)] == 4 * [True]
    mfu = plain["tokens_per_second"] * plain["flops_per_token"] / plain["product_rate"]
    assert f"{mfu:.0%}" in done.stdout
    assert plain["flops_per_token"] > 1e6
    assert trained["tokens_per_second"] > 0
    assert 0 < trained["eval_loss"] < 10
