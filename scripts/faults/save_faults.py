"""A fault at every system call by which a save changes the disk, one at a time.

A dry run under strace lists the calls that touch the brain; then the same command runs again for each of them and
each fault: killed at the call, the call fails with ENOSPC or EIO, or (by a preloaded shim) writes only half. At the
level of system calls the writes of Rust and C++ libraries count like Python's. After it `--resume` must end at the
same bits as an undisturbed run; what failed must have said so in one sentence, or not have failed.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults import strace
from faults.bench import Bench
from faults.brains import (
    bad_wording,
    check_loads,
    check_same,
    last_saved,
    read_records,
    train_args,
)
from faults.processes import Done, check_no_traceback, wake_shim
from faults.records import HELD, LOST, MISSED, SILENT, WRONG_EXIT, Case, Judged, Outcome

KIND = "save_faults"
RULES = ("--adaptive-lr-profile=rules", "--lr=2e-3", "--warmup-steps=2", "--save-every=10", "--eval-every=0")
WRITES = ("write", "writev", "pwrite64", "pwritev", "sendfile", "copy_file_range")
CHANGES = (
    *WRITES,
    *("openat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "link", "linkat"),
    *("symlink", "symlinkat", "ftruncate", "truncate", "fallocate", "fsync", "fdatasync", "sync_file_range"),
)
FREEING = ("unlink", "unlinkat", "rmdir")
"""Calls that a full disk does not stop."""
SIGNAL, ERRORS, SHORT = "kill", ("ENOSPC", "EIO"), "short"
SHORT_CASES = 60
"""More than the writes of any save here; those beyond the last are missed."""


@dataclass(frozen=True)
class Save:
    """A command that saves, and the brain it finds."""

    flags: tuple[str, ...]
    before: int
    """Steps behind the brain that it finds; 0: none is there."""
    damaged: bool = False
    """Whether the newest checkpoint is damaged, so that its step is saved again."""


SAVES = {
    "first": Save((*RULES, "--steps=3"), 0),
    "next": Save((*RULES, "--steps=31"), 30),
    "again": Save((*RULES, "--steps=31"), 30, damaged=True),
    "only": Save((*RULES, "--steps=31", "--keep-checkpoints=1"), 30),
}


def cases(seed: int, bench: Bench) -> list[Case]:
    """Each call of each save with each fault."""
    found = []
    for name in SAVES:
        for syscall, number in listed_calls(name, bench):
            faults = (SIGNAL, *(ERRORS[1:] if syscall in FREEING else ERRORS))
            found += [Case(KIND, f"{name}-{syscall}-{number}-{fault}", seed) for fault in faults]
        found += [Case(KIND, f"{name}-write-{number}-{SHORT}", seed) for number in range(1, SHORT_CASES + 1)]
    return found


def run(case: Case, bench: Bench) -> Outcome:
    """One fault in one save, then a resume."""
    name, syscall, number, fault = case.name.split("-")
    save = SAVES[name]
    folder = bench.folder(f"{KIND}-{case.name}")
    lay_out(save, folder, bench)
    inject = _short_write if fault == SHORT else partial(_broken_call, syscall=syscall, fault=fault)
    done, where = inject(save, folder, bench, number=int(number))
    if where is None:
        return Outcome(MISSED, "the call was not made", 0)
    try:
        wording = _judge_end(done, fault)
        if save.before:
            check_loads(folder / "brain")
        _judge_resume(save, folder, bench, reference_of(name, bench))
    except Judged as judged:
        return Outcome(judged.outcome.verdict, f"{judged.outcome.detail} [at {where}]")
    return Outcome(wording.verdict, f"{wording.detail} [at {where}]") if wording is not None else Outcome(HELD)


def listed_calls(name: str, bench: Bench) -> list[tuple[str, int]]:
    """The calls by which the save `name` changes the brain's folder: name, and number among the calls of the name."""

    def make(folder: Path) -> None:
        save = SAVES[name]
        lay_out(save, folder, bench)
        process = bench.fork(save_args(save, folder), folder, held=True)
        tracer = strace.attach(process, folder, ["-e", f"trace=/^({'|'.join(CHANGES)})$"], folder / "trace")
        done = process.wait()
        tracer.wait()
        if done.code != 0:
            raise RuntimeError(f"the dry run of the save {name} failed: {done.end}")
        mine = [call for call in strace.calls(folder / "trace") if call.touches(folder / "brain")]
        changing = [call for call in mine if call.name != "openat" or "O_CREAT" in call.args]
        (folder / "calls.json").write_text(json.dumps([(call.name, call.number) for call in changing]))

    path = bench.made(f"calls-{name}", make)
    return [(syscall, number) for syscall, number in json.loads((path / "calls.json").read_text())]


def save_args(save: Save, folder: Path) -> list[str]:
    return train_args(folder, *save.flags, *(("--resume",) if save.before else ()))


def lay_out(save: Save, folder: Path, bench: Bench) -> None:
    """The brain that the save finds, in `folder`."""
    template = bench.trained("saved", *RULES, "--steps=30")  # always: it fills the cache, which would be traced, too
    if save.before:
        shutil.copytree(template / "brain", folder / "brain")
    if save.damaged:
        (folder / "brain" / "checkpoints" / f"step-{save.before}" / "state.pt").write_bytes(b"damaged")


def reference_of(name: str, bench: Bench) -> Path:
    """A shared folder in which the save was left alone."""

    def make(folder: Path) -> None:
        lay_out(SAVES[name], folder, bench)
        done = bench.run(save_args(SAVES[name], folder), folder)
        if done.code != 0:
            raise RuntimeError(f"the undisturbed save {name} failed: {done.end}")

    return bench.made(f"save-{name}", make)


def _broken_call(
    save: Save, folder: Path, bench: Bench, *, syscall: str, fault: str, number: int
) -> tuple[Done, str | None]:
    """Run the save with one call broken; its end, and the call that was hit."""
    how = "signal=SIGKILL" if fault == SIGNAL else f"error={fault}"
    process = bench.fork(save_args(save, folder), folder, held=True)
    options = ["-e", f"trace={syscall}", "-e", f"inject={syscall}:{how}:when={number}"]
    tracer = strace.attach(process, folder, options, folder / "trace")
    done = process.wait()
    tracer.wait()
    hit = [call for call in strace.calls(folder / "trace") if call.injected or call.result is None]
    return done, f"{hit[0].name}({hit[0].args.replace(str(folder), '.')[:160]})" if hit else None


def _short_write(save: Save, folder: Path, bench: Bench, *, number: int) -> tuple[Done, str | None]:
    """Run the save with one write cut short; its end, and the file that was hit."""
    report = folder / "short"
    wake = partial(wake_shim, FAULT_SHORT=str(number), FAULT_REPORT=str(report))
    done = bench.fork(save_args(save, folder), folder, wake).wait()
    return done, report.read_text().replace(str(folder), ".") if report.exists() else None


def _judge_end(done: Done, fault: str) -> Outcome | None:
    """It ended as it may; an outcome where its words alone are wrong, which weighs less than what the resume shows."""
    check_no_traceback(done)
    if fault == SIGNAL:
        return None
    if done.code not in (0, 1, 2):
        raise Judged(WRONG_EXIT, f"exit {done.code} after {fault}: {done.end}")
    if fault == SHORT and done.code != 0:
        raise Judged(WRONG_EXIT, f"a short write, which is no error, ends in exit {done.code}: {done.end}")
    return bad_wording(done.said) if done.code != 0 else None


def _judge_resume(save: Save, folder: Path, bench: Bench, reference: Path) -> None:
    """Go on from what the fault left, and compare."""
    brain = folder / "brain"
    starts, sitting = 0, list[dict[str, Any]]()
    for record in read_records(brain / "metrics.jsonl", torn=True):
        starts, sitting = (starts + 1, []) if record["event"].startswith("run_") else (starts, [*sitting, record])
    known = 20 if save.damaged else save.before
    saved = last_saved(sitting) if starts > (save.before > 0) else None
    args = save_args(save, folder)
    if not save.before and any((brain / "checkpoints").glob("step-*")):
        args.append("--resume")
    done = bench.run(args, folder)
    check_no_traceback(done)
    if done.code != 0:
        raise Judged(LOST if saved else WRONG_EXIT, f"the resume ends in exit {done.code}: {done.end}")
    resumed = [r["step"] for r in read_records(brain / "metrics.jsonl") if r["event"].startswith("run_")][starts:]
    floor = max(saved or 0, known)
    if resumed and resumed[0] < floor:
        raise Judged(LOST, f"resumed from step {resumed[0]} although step {floor} was saved")
    check_same(brain, bench.print_of(reference))
    leftovers = [path.name for path in (brain / "checkpoints").glob(".*")]
    if leftovers:
        raise Judged(SILENT, f"the resume leaves {leftovers[0]} behind")
