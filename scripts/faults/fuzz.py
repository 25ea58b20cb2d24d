"""Fuzzing of everything that is read: logs, settings files, manifests, checkpoint dicts, brain cards.

Each case is a thousand examples of hypothesis in a process of its own (`python -m faults.fuzz_worker`). A reader may
return or raise one of the project's own errors; anything else, or more than a second for one example, does not hold.
"""

from __future__ import annotations

import json
import subprocess
import sys

from faults.bench import Bench
from faults.records import HANG, HELD, TRACEBACK, Case, Outcome

KIND = "fuzz"
READERS = ("log", "settings", "adaptive_settings", "manifest", "state", "card")
EXAMPLES, PARTS = 1000, 10
SECONDS = 1800.0


def cases(seed: int, bench: Bench) -> list[Case]:
    """Ten thousand examples for each reader."""
    return [Case(KIND, f"{reader} {part}", seed, EXAMPLES) for reader in READERS for part in range(PARTS)]


def run(case: Case, bench: Bench) -> Outcome:
    """A thousand examples."""
    reader, part = case.name.split(" ")
    folder = bench.folder(f"{KIND}-{case.name}")
    flags = ("--adaptive-lr-profile=auto", "--steps=300", "--save-every=50", "--eval-every=100")
    brain = bench.trained("fuzz", *flags) / "brain"
    command = [sys.executable, "-m", "faults.fuzz_worker", reader, str(case.faults), f"{case.seed * 1000 + int(part)}"]
    try:
        done = subprocess.run(
            [*command, str(folder), str(brain)], capture_output=True, text=True, env=bench.env, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return Outcome(HANG, f"{reader}: no end after {SECONDS:.0f} s")
    if done.returncode != 0:
        return Outcome(TRACEBACK, f"{reader}: the fuzzer itself ended with {done.returncode}: {done.stderr[-300:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Outcome(found["verdict"], found["detail"], found["examples"]) if found["verdict"] != HELD else Outcome(HELD)
