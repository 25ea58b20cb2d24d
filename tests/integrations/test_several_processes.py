"""Steered training in two real processes of `accelerate launch`, over gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
_LAUNCH = ["--multi_gpu", "--num_processes", "2", "--num_machines", "1", "--mixed_precision", "no"]
_PLACE = ["--dynamo_backend", "no", "--main_process_port", "0"]  # any port that is free


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["trainer", "loop"])
@pytest.mark.parametrize(("start", "steps", "how"), [("fresh", 80, "climb"), ("trained", 330, "race")])
def test_both_workers_decide_alike(tmp_path: Path, kind: str, start: str, steps: int, how: str) -> None:
    path = os.pathsep.join([str(HERE.parents[1] / "src"), str(HERE.parent)])
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *_LAUNCH, *_PLACE]
    # On CPUs without MPI, Accelerate starts several processes by its launcher for GPUs alone.
    surroundings = {**os.environ, "PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
    command = [*launcher, str(HERE / "ddp_worker.py"), str(tmp_path), kind, start, str(steps)]
    subprocess.run(command, env=surroundings, check=True, timeout=250)
    one, other = (json.loads((tmp_path / f"worker{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert (one["workers"], one["steps"]) == (2, steps)
    found = [record for record in one["events"] if record["event"] == f"adaptive_lr_{how}"]
    assert found[0]["lr"] is not None
