"""The benchmark of the picture measures what it says it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_gui.py"


@pytest.mark.slow
def test_bench_follows_a_log_and_writes_its_numbers(tmp_path: Path) -> None:
    numbers = tmp_path / "gui.json"
    command = [sys.executable, str(SCRIPT), "--records", "300,600", "--json", str(numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert "Targets" in done.stdout, done.stderr
    logs = json.loads(numbers.read_text(encoding="utf-8"))["logs"]
    assert [log["records"] for log in logs] == [300, 600]
    assert logs[1]["log_mb"] > logs[0]["log_mb"] > 0.05
    measured = ("redraw_ms", "redraw_cpu_ms", "frame_cpu_ms", "zoomed_cpu_ms", "crosshair_cpu_ms", "lag_s")
    assert all(log[key] > 0 for log in logs for key in measured)
