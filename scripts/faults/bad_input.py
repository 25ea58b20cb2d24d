"""Bad input and strangers' brains for every command.

Each case runs one command in a folder with other people's files around. It must end with 0, or with 2 and one
sentence; nothing outside its output folder may be touched, and no code from a file may run, though `y` is answered
to whatever is asked. A run that is accepted and long is asked to stop, and must.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

from faults.bench import Bench
from faults.brains import TINY, bad_wording
from faults.inputs import COMMANDS, make_files
from faults.processes import Done, Fork, check_no_traceback, kill
from faults.records import CODE_RUN, HANG, HELD, TOUCHED, WRONG_EXIT, Case, Judged, Outcome
from faults.strangers import STRANGERS

KIND = "input"
PATIENCE = 25.0
"""Seconds after which a run is asked to stop."""
MORE_PATIENCE = 60.0
"""Seconds in which it must have, or have refused what is absurd."""
MEMORY = 12 << 30
"""Address space in bytes, so that absurd sizes harm nobody else."""
STRANGERS_USES = {
    "resume": ("hrm-hf", "train", "--resume", "--steps=22"),
    "student": ("hrm-hf", "train", "--student-init={brain}", "--brain-name=new", "--steps=2"),
    "peft": ("hrm-hf", "train", "--student-init={brain}", "--use-peft", "--brain-name=new", "--steps=2"),
    "tokenizer": ("hrm-hf", "train", "--model={brain}", "--brain-name=new", "--steps=2"),
    "lr-log": ("hrm-hf", "lr-log", "{brain}"),
    "replay": ("hrm-hf", "replay", "{brain}"),
}
_TINY_TRAIN = (*TINY, "--adaptive-lr-profile=rules", "--eval-every=0")


def cases(seed: int, bench: Bench) -> list[Case]:
    """Each bad input, then each stranger's brain in each use."""
    names = [f"command {number:03} {' '.join(args)}"[:200] for number, args in enumerate(COMMANDS)]
    names += [f"stranger {stranger} {use}" for stranger in STRANGERS for use in STRANGERS_USES]
    return [Case(KIND, name.encode("ascii", "backslashreplace").decode(), seed) for name in names]


def run(case: Case, bench: Bench) -> Outcome:
    """One command; judged by its end and by what lies in the folder afterwards."""
    folder = bench.folder(f"{KIND}-{case.name[:60]}")
    marker = folder / "outside" / "code-was-run"
    args = _laid_out(case, folder, marker, bench)
    before = _snapshot(folder)
    process = bench.fork(args, folder / "cwd", partial(_prepare, str(folder)))
    done, stopped = _wait(process)
    if marker.exists():
        raise Judged(CODE_RUN, f"code from a file was run: {done.end}")
    if changed := _changed(before, _snapshot(folder)):
        raise Judged(TOUCHED, f"{', '.join(changed[:3])}: exit {done.code}: {done.end[-200:]}")
    check_no_traceback(done)
    allowed = (0, 2, 130) if stopped else (0, 2)
    if done.code not in allowed:
        raise Judged(WRONG_EXIT, f"exit {done.code}: {done.end}")
    if done.code == 2 and "Usage:" not in done.said:
        return bad_wording(done.said) or Outcome(HELD)
    return Outcome(HELD)


def _laid_out(case: Case, folder: Path, marker: Path, bench: Bench) -> list[str]:
    """Put everything into the folder; the arguments of the command."""
    for name in ("home", "outside", "in", "out", "cwd"):
        (folder / name).mkdir()
    for name in ("home/.profile", "outside/profile", "outside/document.txt"):
        (folder / name).write_text("somebody's own, with no newline at its end", encoding="utf-8")
    make_files(folder / "in", random.Random(case.seed))
    trained = bench.trained("stranger", *_TINY_TRAIN, "--lr=1e-3", "--steps=20", "--save-every=10") / "brain"
    what, name, *rest = case.name.split(" ")
    if what == "command":
        shutil.copytree(trained, folder / "in" / "brain")
        args = [arg.format(folder=folder, files=folder / "in") for arg in COMMANDS[int(name)]]
    else:
        brain = folder / "out" / "brain"
        shutil.copytree(trained, brain)
        STRANGERS[name](brain, str(marker))
        args = [arg.format(brain=brain) for arg in STRANGERS_USES[rest[0]]]
    if args[:2] in (["hrm-hf", "train"], ["hrm-hf", "train-actv1"], ["hrm-hf", "lr-find"]):
        mine = [f"--bundle-dir={folder / 'out'}", "--brain-name=brain", "--steps=2"]
        mine += [f"--output={folder / 'out' / 'curve.png'}"] if args[1] == "lr-find" else []
        base = [arg for arg in (*_TINY_TRAIN, *mine) if not _given(arg, args)]
        args = [*args[:2], *base, *args[2:]]
    return args


def _given(arg: str, args: list[str]) -> bool:
    name = arg.partition("=")[0]
    return any(other.partition("=")[0] == name for other in args)


def _prepare(folder: str) -> None:
    """In the child: another home, enough memory and no more, `y` to every question."""
    os.environ["HOME"] = f"{folder}/home"
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.open(f"{folder}/.answers", os.O_RDWR | os.O_CREAT)
    os.write(answers, b"y\n" * 1000)
    os.lseek(answers, 0, os.SEEK_SET)
    os.dup2(answers, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115  it stays open for the command


def _wait(process: Fork) -> tuple[Done, bool]:
    """Its end, and whether it had to be asked to."""
    try:
        return process.wait(PATIENCE, kill_it=False), False
    except Judged:
        if process.pid is not None:
            kill(process.pid, signal.SIGINT)
    try:
        return process.wait(MORE_PATIENCE), True
    except Judged as judged:
        raise Judged(HANG, f"deaf to Ctrl-C: {judged.outcome.detail}") from None


def _snapshot(folder: Path) -> dict[str, str]:
    """What lies in the folder beside the outputs, with its contents."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.startswith((".answers", "out/", "cwd/.says")) or name == "out":
            continue
        if path.is_symlink() or not path.is_file():
            found[name] = "link" if path.is_symlink() else "folder"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Names that are new, gone or different."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
