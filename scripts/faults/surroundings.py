"""Surroundings that turn against a run: full and read-only disks, no memory, clocks, signals, file systems that die.

Each case harms a run that is under way, puts the surroundings right again, resumes, and compares with an
undisturbed run. Disks are file systems of their own (tmpfs of a given size, ext4 in a file), so this needs root.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from faults.bench import Bench
from faults.brains import bad_wording, check_same, last_start, read_records, train_args
from faults.kill import Tail
from faults.processes import Done, Running, check_no_traceback, kill, until, wake_shim
from faults.records import HELD, LOST, MISSED, WRONG_EXIT, Case, Judged, Outcome

KIND = "surroundings"
FLAGS = (
    *("--adaptive-lr-profile=auto", "--lr=2e-3", "--save-every=20", "--eval-every=50", "--steps=200"),
    "--keep-checkpoints=2",
)
DISK_KIB = (*range(256, 14_000, 512), *range(1024, 13_000, 1024))
MEMORY_MIB = (*range(1, 32, 2), 40, 64, 128, 512)
"""Address space left to a run that has imported everything."""
SIGNALS = ("HUP", "QUIT", "TERM", "INT", "ABRT", "SEGV", "XFSZ", "USR1", "PIPE")
BACK = {"an hour": 3_600, "ten years": 315_000_000, "a second": 1}
DRAWS = 3


def cases(seed: int, bench: Bench) -> list[Case]:
    """All of them."""
    names = [f"disk {kib} KiB" for kib in sorted(set(DISK_KIB))]
    names += [f"memory {mib} MiB" for mib in MEMORY_MIB]
    names += [f"readonly {draw}" for draw in range(2 * DRAWS)]
    names += [f"clock {looks} {how}" for how in BACK for looks in (1, 60, 400)]
    names += [f"signal {name} {draw}" for name in SIGNALS for draw in range(DRAWS)]
    return [Case(KIND, name, seed) for name in names]


def run(case: Case, bench: Bench) -> Outcome:
    """Harm, put right, resume, compare."""
    what, _, how = case.name.partition(" ")
    rng = random.Random(f"{case.seed}/{case.name}")
    folder = bench.folder(f"{KIND}-{case.name}")
    reference = bench.trained("surroundings", *FLAGS)
    outcome = _KINDS[what](how, folder, bench, rng)
    if outcome is not None and outcome.verdict == MISSED:
        return outcome
    kept = folder / "kept" if (folder / "kept").exists() else folder / "disk"
    # A file system that fails drops lines of the log that were not synced, as a power cut does.
    start = last_start(read_records(kept / "brain" / "metrics.jsonl")) if what == "readonly" else None
    check_same(kept / "brain", bench.print_of(reference), from_step=start or 0)
    return outcome or Outcome(HELD)


def _full_disk(how: str, folder: Path, bench: Bench, rng: random.Random) -> Outcome | None:
    kib = int(how.split()[0])
    with mounted(folder / "disk", ["-t", "tmpfs", "-o", f"size={kib}k", "campaign"]) as disk:
        done = bench.run(train_args(disk, *FLAGS), folder)
        outcome = _end(done)
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        if done.code != 0:
            _resume(disk, folder, bench)
        _keep(disk)
    return outcome


def _read_only(how: str, folder: Path, bench: Bench, rng: random.Random) -> Outcome | None:
    """An error of the file system makes it read-only in mid-run, as a failing disk would."""
    image = folder / "image"
    with image.open("wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
    with mounted(folder / "disk", ["-o", "loop,errors=remount-ro", str(image)]) as disk:
        process = bench.fork(train_args(disk, *FLAGS), folder)
        if not _at_step(process, disk, rng.randrange(5, 190)):
            return Outcome(MISSED, "the run ended first", 0)
        device = Path(_device_of(disk)).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("campaign")
        done = process.wait()
        outcome = _end(done)
        subprocess.run(["umount", str(disk)], check=True)
        subprocess.run(["e2fsck", "-fy", str(image)], check=False, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=True)
        if done.code != 0:
            _resume(disk, folder, bench)
        _keep(disk)
    return outcome


def _little_memory(how: str, folder: Path, bench: Bench, rng: random.Random) -> Outcome | None:
    disk = _plain_disk(folder)
    done = bench.fork(train_args(disk, *FLAGS), folder, partial(_limit_memory, int(how.split()[0]))).wait()
    # A library that cannot go on without memory may abort the process: then it counts as killed.
    outcome = None if done.code == -signal.SIGABRT else _end(done)
    if done.code != 0:
        _resume(disk, folder, bench)
    return outcome


def _limit_memory(mib: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + (mib << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _clock(how: str, folder: Path, bench: Bench, rng: random.Random) -> Outcome | None:
    looks, _, back = how.partition(" ")
    disk = _plain_disk(folder)
    wake = partial(wake_shim, FAULT_BACK=f"{BACK[back]},{looks}")
    done = bench.fork(train_args(disk, *FLAGS), folder, wake).wait()
    check_no_traceback(done)
    if done.code != 0:
        raise Judged(WRONG_EXIT, f"exit {done.code}: {done.end}")
    return None


def _signal(how: str, folder: Path, bench: Bench, rng: random.Random) -> Outcome | None:
    number = getattr(signal, f"SIG{how.split()[0]}")
    disk = _plain_disk(folder)
    process = bench.fork(train_args(disk, *FLAGS), folder, partial(resource.setrlimit, resource.RLIMIT_CORE, (0, 0)))
    if not _at_step(process, disk, rng.randrange(2, 190)) or process.pid is None or not kill(process.pid, number):
        return Outcome(MISSED, "the run ended first", 0)
    done = process.wait()
    check_no_traceback(done)
    if done.code not in (0, -number):
        raise Judged(WRONG_EXIT, f"exit {done.code} after {how}: {done.end}")
    _resume(disk, folder, bench)
    return None


_KINDS: dict[str, Callable[[str, Path, Bench, random.Random], Outcome | None]] = {
    "disk": _full_disk,
    "memory": _little_memory,
    "readonly": _read_only,
    "clock": _clock,
    "signal": _signal,
}


@contextmanager
def mounted(point: Path, options: list[str]) -> Iterator[Path]:
    """A file system at `point` for as long as the block runs."""
    point.mkdir()
    subprocess.run(["mount", *options, str(point)], check=True)
    try:
        yield point
    finally:
        for _ in range(20):
            if subprocess.run(["umount", str(point)], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.2)


def _keep(disk: Path) -> None:
    """Copy the brain to below the mount point, where it is looked for when the file system is gone."""
    kept = disk.with_name("kept")
    subprocess.run(["cp", "-r", str(disk), str(kept)], check=True)


def _plain_disk(folder: Path) -> Path:
    (folder / "disk").mkdir()
    return folder / "disk"


def _device_of(disk: Path) -> str:
    lines = (line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines())
    return next(device for device, point, *_ in lines if point == str(disk))


def _at_step(process: Running, disk: Path, step: int) -> bool:
    tail = Tail(disk / "brain" / "metrics.jsonl")
    return until(process, lambda: tail.reached(step))


def _end(done: Done) -> Outcome | None:
    """It ended well, or said why not; an outcome where its words alone are wrong."""
    check_no_traceback(done)
    if done.code not in (0, 1, 2):
        raise Judged(WRONG_EXIT, f"exit {done.code}: {done.end}")
    return bad_wording(done.said) if done.code != 0 else None


def _resume(disk: Path, folder: Path, bench: Bench) -> None:
    more = ["--resume"] if any((disk / "brain" / "checkpoints").glob("step-*")) else []
    done = bench.run(train_args(disk, *FLAGS, *more), folder)
    check_no_traceback(done)
    if done.code != 0:
        raise Judged(LOST, f"the resume ends in exit {done.code}: {done.end}")
