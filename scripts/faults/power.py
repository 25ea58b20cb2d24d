"""The power is cut: what was not synced is lost.

Two ways. A save is traced, and from the trace the states are built that a disk may hold after a cut at any call (see
disk_model); each is resumed. And an ext4 file system in a file is shut down under a run without flushing its journal
(FS_IOC_SHUTDOWN), which drops what a cut would drop there; mounted again, the run is resumed. Either way the newest
checkpoint that the run had told of must be there, and the end must be that of an undisturbed run. Lines of the log
that nobody synced may be gone up to that checkpoint.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import random
import re
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from faults import strace, surroundings
from faults.bench import Bench
from faults.brains import check_loads, check_same, last_start, read_records, train_args
from faults.disk_model import ALL, NONE, SOME, TRACED, Disk, Op, Replay, after_cut
from faults.kill import Tail
from faults.processes import check_no_traceback, until
from faults.records import HELD, LOST, MISSED, Case, Judged, Outcome
from faults.save_faults import SAVES, Save, lay_out, reference_of, save_args

KIND = "power"
MODES = (NONE, ALL, f"{SOME}1", f"{SOME}2")
TRACED_SAVES = ("first", "next", "again")
SHUTDOWNS = 60
_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, 2


@dataclass(frozen=True)
class Traced:
    """A save that was traced."""

    start: Disk
    ops: list[Op]
    told: tuple[tuple[int, int], ...]
    """(calls done, step): from when on the run had told of a checkpoint."""


def cases(seed: int, bench: Bench) -> list[Case]:
    """Each cut of each save in each mode, then the shutdowns."""
    found = []
    for name in TRACED_SAVES:
        cuts = range(1, len(_traced(name, bench).ops) + 1)
        found += [Case(KIND, f"{name} {cut} {mode}", seed) for cut in cuts for mode in MODES]
    return found + [Case(KIND, f"shutdown {number}", seed) for number in range(SHUTDOWNS)]


def run(case: Case, bench: Bench) -> Outcome:
    """One cut, then a resume."""
    folder = bench.folder(f"{KIND}-{case.name}")
    rng = random.Random(f"{case.seed}/{case.name}")
    if case.name.startswith("shutdown"):
        return _shut_down(folder, bench, rng)
    name, cut, mode = case.name.split(" ")
    traced = _traced(name, bench)
    after_cut(traced.start, traced.ops, int(cut), mode.rstrip("12"), rng).write(folder)
    told = max((step for at, step in traced.told if at <= int(cut)), default=0)
    save = SAVES[name]
    floor = max(told, 20 if save.damaged else save.before)
    _resume(train_args(folder, *save.flags), folder / "brain", floor, bench, reference_of(name, bench), folder)
    return Outcome(HELD)


def _traced(name: str, bench: Bench) -> Traced:
    """The save `name`, traced once."""

    def make(folder: Path) -> None:
        lay_out(SAVES[name], folder, bench)
        (folder / "brain").mkdir(exist_ok=True)
        start = Disk.read(folder)
        replay = _trace(SAVES[name], folder, bench, start)
        told = []
        for at, op in enumerate(replay.ops, start=1):
            if op.what == "data" and (match := re.search(rb'"event": "checkpoint".*?"step": (\d+)', op.data)):
                told.append((at, int(match[1])))
        (folder / "traced").write_bytes(pickle.dumps(Traced(start, replay.ops, tuple(told))))

    path = bench.made(f"traced-{name}", make)
    traced: Traced = pickle.loads((path / "traced").read_bytes())
    return traced


def _trace(save: Save, folder: Path, bench: Bench, start: Disk) -> Replay:
    trace = folder / "trace"
    process = bench.fork(save_args(save, folder), folder, held=True)
    options = ["-xx", "-s", str(1 << 24), "-e", f"trace=/^({'|'.join(TRACED)})$"]
    tracer = strace.attach(process, folder, options, trace)
    done = process.wait()
    tracer.wait()
    if done.code != 0:
        raise RuntimeError(f"the traced save failed: {done.end}")
    replay = Replay(folder, start)
    with trace.open(encoding="utf-8") as lines:
        for line in lines:
            replay.take(line.rstrip("\n"))
    trace.unlink()
    _check_replay(replay.live, folder)
    return replay


def _check_replay(live: Disk, folder: Path) -> None:
    """The replayed trace must have led to the files that are really there, or the model has missed a call."""
    for path in (folder / "brain").rglob("*"):
        node = live.find(path.relative_to(folder).parts)
        if node is None or (path.is_file() and live.files.get(node) != path.read_bytes()):
            raise RuntimeError(f"the trace does not explain {path}")


def _shut_down(folder: Path, bench: Bench, rng: random.Random) -> Outcome:
    """Shut ext4 down in mid-run, mount it again, resume."""
    image, flags = folder / "image", surroundings.FLAGS
    with image.open("wb") as file:
        file.truncate(48 << 20)
    subprocess.run(["mkfs.ext4", "-q", str(image)], check=True)
    reference = bench.trained("surroundings", *flags)
    mode = rng.choice(["ordered", "writeback"])
    with surroundings.mounted(folder / "disk", ["-o", f"loop,commit=300,data={mode}", str(image)]) as disk:
        os.sync()
        process = bench.fork(train_args(disk, *flags), folder)
        step, tail = rng.randrange(0, 200), Tail(disk / "brain" / "metrics.jsonl")
        if not until(process, lambda: tail.reached(step)):
            return Outcome(MISSED, "the run ended first", 0)
        time.sleep(rng.uniform(0, 0.05))
        descriptor = os.open(disk, os.O_RDONLY)
        fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        os.close(descriptor)
        done = process.wait()
        check_no_traceback(done)
        told = max((int(number) for number in re.findall(r"step (\d+): saved", done.said)), default=0)
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
        _resume(train_args(disk, *flags), disk / "brain", told, bench, reference, folder)
    return Outcome(HELD)


def _resume(args: list[str], brain: Path, floor: int, bench: Bench, reference: Path, folder: Path) -> None:
    """Go on from what is left, and compare; `floor`: the newest step that the run had told was saved."""
    resumable = any((brain / "checkpoints").glob("step-*"))
    if floor and not resumable:
        raise Judged(LOST, f"step {floor} was saved, and there is no checkpoint")
    if resumable and (brain / "model.safetensors").exists():
        check_loads(brain)
    done = bench.run([*args, "--resume"] if resumable else args, folder)
    check_no_traceback(done)
    if done.code != 0:
        raise Judged(LOST, f"the resume ends in exit {done.code}: {done.end}")
    start = last_start(read_records(brain / "metrics.jsonl"))
    if "already" not in done.said and (start is None or start < floor):
        raise Judged(LOST, f"resumed from {start} although step {floor} was saved")
    check_same(brain, bench.print_of(reference), from_step=start or 0)
