"""Each file of a brain damaged in each way, alone and with each other file.

The brain has three checkpoints. After the damage `--resume` must go on from the newest valid checkpoint to the same
bits as an undisturbed run, or refuse in one sentence: never something else in silence. What is published is derived,
so that damage to it must be gone afterwards.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

from faults.bench import Bench
from faults.brains import bad_wording, check_same, fingerprint, read_records, train_args
from faults.processes import Done, check_no_traceback
from faults.records import HELD, LOST, SILENT, WRONG_EXIT, Case, Judged, Outcome

KIND = "damage"
FLAGS = ("--adaptive-lr-profile=rules", "--lr=2e-3", "--warmup-steps=2", "--save-every=10", "--eval-every=0")
BEFORE, AFTER = 30, 40
LOG = "metrics.jsonl"


def cases(seed: int, bench: Bench) -> list[Case]:
    """Each file with each damage, then each pair of files with two damages drawn."""
    files = _files(bench)
    singles = [Case(KIND, f"{damage} {file}", seed) for file in files for damage in DAMAGES]
    rng = random.Random(f"{seed}/{KIND}")
    pairs = [
        Case(KIND, f"{rng.choice(list(DAMAGES))} {one} + {rng.choice(list(DAMAGES))} {other}", seed, faults=2)
        for one, other in combinations(files, 2)
    ]
    return singles + pairs


def run(case: Case, bench: Bench) -> Outcome:
    """Damage, resume, compare."""
    folder = bench.folder(f"{KIND}-{case.name}")
    brain = folder / "brain"
    shutil.copytree(_template(bench) / "brain", brain)
    rng = random.Random(f"{case.seed}/{case.name}")
    damaged = []
    for part in case.name.split(" + "):
        damage, file = part.split(" ", 1)
        DAMAGES[damage](brain / file, rng)
        damaged.append(file)
    valid = [step for step in (10, 20, 30) if not any(file.startswith(f"checkpoints/step-{step}/") for file in damaged)]
    done = bench.run(train_args(folder, "--resume", f"--steps={AFTER}"), folder)
    check_no_traceback(done)
    if done.code == 2:
        if valid and LOG not in damaged:
            return Outcome(LOST, f"refused: {done.end}")
        return bad_wording(done.said) or Outcome(HELD)
    if done.code != 0:
        raise Judged(WRONG_EXIT, f"exit {done.code}: {done.end}")
    _judge(done, brain, bench, damaged, max(valid, default=0))
    return Outcome(HELD)


def _judge(done: Done, brain: Path, bench: Bench, damaged: list[str], newest: int) -> None:
    """A run that went on: from the right step, to the right end, and what it had to skip was said."""
    reference = bench.made("damage-none", lambda folder: _reference(folder, bench))
    if LOG in damaged:
        found = fingerprint(brain) if not _torn_inside(brain / LOG) else None
        if found is not None and found.published != bench.print_of(reference).published:
            raise Judged(SILENT, "the published brain is another")
        return
    resumed = [record["step"] for record in read_records(brain / LOG) if record["event"] == "run_resumed"]
    if not resumed or resumed[-1] < newest:
        raise Judged(LOST, f"resumed from {resumed}, although step {newest} is valid")
    check_same(brain, bench.print_of(reference))
    skipped = [file for file in damaged if file.startswith("checkpoints/") and f"step-{resumed[-1]}/" not in file]
    for file in skipped:
        step = file.split("/")[1]
        if int(step[5:]) > resumed[-1] and step not in done.said:
            raise Judged(SILENT, f"the damaged {step} was skipped and nothing said")


def _torn_inside(log: Path) -> bool:
    """Whether the damage left a line that nobody can repair: then the log is as it was damaged."""
    try:
        read_records(log, torn=True)
    except Judged:
        return True
    return False


def _template(bench: Bench) -> Path:
    return bench.trained("damage", *FLAGS, f"--steps={BEFORE}")


def _reference(folder: Path, bench: Bench) -> None:
    shutil.copytree(_template(bench) / "brain", folder / "brain")
    done = bench.run(train_args(folder, "--resume", f"--steps={AFTER}"), folder)
    if done.code != 0:
        raise RuntimeError(f"the undisturbed resume failed: {done.end}")


def _files(bench: Bench) -> list[str]:
    """The files of the brain, those of the oldest checkpoint left out, relative to it."""
    brain = _template(bench) / "brain"
    names = sorted(path.relative_to(brain).as_posix() for path in brain.rglob("*") if path.is_file())
    return [name for name in names if not name.startswith("checkpoints/step-10/")]


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _half(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _noise(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(path.stat().st_size))


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _gone(path: Path, rng: random.Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {
    "empty": _empty,
    "half": _half,
    "bit": _bit,
    "noise": _noise,
    "folder": _folder,
    "gone": _gone,
}
