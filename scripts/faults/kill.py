"""SIGKILL at random moments of real runs: chains of kill and resume on one brain, compared at the end.

The moments are drawn from the phases of the undisturbed run (start, climb and its edge, warm-up, steps, saves,
anneal, end) and awaited in its log. A run that starts no processes is forked, its imports done. Each chain ends with
a resume that is left alone; then losses, learning rates, gradient norms, evaluations, decisions and published files
must be those of the undisturbed run, bit for bit. After each kill the resume must begin at the newest save that the
log had told of.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.bench import Bench
from faults.brains import check_loads, check_same, last_saved, read_records, train_args
from faults.processes import Done, Fork, Real, check_no_traceback, kill, until
from faults.records import HANG, HELD, LOST, ORPHAN, SILENT, WRONG_EXIT, Case, Judged, Outcome

KIND = "kill"
AUTO = ("--adaptive-lr-profile=auto", "--save-every=20", "--eval-every=100", "--steps=400")
"""Long enough for a climb of some hundred steps, and for as many after it."""
SHORT = ("--adaptive-lr-profile=auto", "--lr=2e-3", "--save-every=10", "--eval-every=100", "--steps=200")
START = 4.0
"""Seconds in which a start is over, imports and all."""
ORPHAN_SECONDS = 90.0
"""In which workers that lost their launcher must have ended."""


@dataclass(frozen=True)
class Variant:
    """A way to train."""

    flags: tuple[str, ...]
    steps: int
    kills: int
    """Of one chain."""
    chains: int
    victims: tuple[str, ...] = ("main",)
    """Who may be killed: the process started (main), one of its children (rank), or all (family)."""
    student: bool = False
    """Continues from another brain."""
    exact: bool = True
    """Whether a run that was killed must equal one that was not."""

    @property
    def several(self) -> bool:
        """Whether it starts processes of its own."""
        return self.victims != ("main",)


DDP = ("--ddp", "--world-size=2")
APART = ("--parallel-independent", "--world-size=2", "--merge-every=20")
TWO = ("rank", "main", "family")
VARIANTS = {
    "dense": Variant(AUTO, 400, 5, 9),
    "moe": Variant((*AUTO, "--use-moe", "--num-experts=3"), 400, 5, 9),
    "lora": Variant((*AUTO, "--use-peft", "--lora-rank=4"), 400, 5, 9, student=True),
    "accumulation": Variant((*AUTO, "--gradient-accumulation-steps=2"), 400, 5, 9),
    "rules": Variant((*AUTO, "--adaptive-lr-profile=rules", "--lr=2e-3"), 400, 5, 9),
    "ddp": Variant((*SHORT, *DDP), 200, 2, 13, TWO),
    "independent": Variant((*SHORT, *APART), 200, 2, 7, TWO, exact=False),
    "zero1": Variant((*SHORT, "--zero-stage=zero1", "--world-size=2"), 200, 2, 4, TWO),
    "zero3": Variant((*SHORT, "--zero-stage=zero3", "--world-size=2"), 200, 2, 3, TWO),
}


def cases(seed: int, bench: Bench) -> list[Case]:
    """All chains: over 200 kills on one process and 40 on several, since some come too late."""
    return [
        Case(KIND, f"{name}-{number}", seed, variant.kills)
        for name, variant in VARIANTS.items()
        for number in range(variant.chains)
    ]


def run(case: Case, bench: Bench) -> Outcome:
    """One chain."""
    name = case.name.rpartition("-")[0]
    variant = VARIANTS[name]
    flags = variant.flags
    if variant.student:
        student = bench.trained("student", "--steps=40", "--lr=3e-3", "--eval-every=0", "--adaptive-lr-profile=rules")
        flags = (*flags, f"--student-init={student / 'brain'}")
    reference = bench.trained(f"kill-{name}", *flags, real=variant.several)
    rng = random.Random(f"{case.seed}/{case.name}")
    chain = Chain(bench, bench.folder(f"{KIND}-{case.name}"), flags, variant, rng)
    moments = sorted(draw_moments(reference / "brain", variant.steps, case.faults, rng), key=lambda m: m.step)
    try:
        for moment in moments:
            chain.kill_at(moment)
        done = chain.end()
        chain.judge(done)
        if variant.exact:
            check_same(chain.brain, bench.print_of(reference))
        else:
            _check_merged(chain.brain, variant.steps)
        check_loads(chain.brain)
    except Judged as judged:
        trace = f" [kills: {'; '.join(chain.history)}]"
        return Outcome(judged.outcome.verdict, judged.outcome.detail + trace, chain.kills)
    return Outcome(HELD, "", chain.kills)


@dataclass(frozen=True)
class Moment:
    """When to kill: `wait` seconds after the log shows `step`, in a save `inside_save` after it has begun."""

    phase: str
    step: int
    wait: float
    inside_save: bool = False


def draw_moments(brain: Path, steps: int, count: int, rng: random.Random) -> Iterator[Moment]:
    """Moments of random phases of the undisturbed run in `brain`."""
    phases = _phases(brain, steps)
    for _ in range(count):
        phase = rng.choice([*phases, "save", "save", "steps", "end"])
        if phase == "save":
            yield Moment(phase, rng.randrange(steps), rng.uniform(0, 0.04), inside_save=True)
        elif phase == "steps":
            yield Moment(phase, rng.randrange(1, steps), rng.uniform(0, 0.02))
        elif phase == "end":
            yield Moment(phase, steps, rng.uniform(0, 0.3))
        else:
            first, last, longest = phases[phase]
            yield Moment(phase, rng.randint(first, last), rng.uniform(0, longest))


def _phases(brain: Path, steps: int) -> dict[str, tuple[int, int, float]]:
    """Of each phase that the run had: first and last step to wait for, and how long to wait then, in seconds."""
    found: dict[str, tuple[int, int, float]] = {"start": (-1, -1, START), "first step": (0, 0, 0.5)}
    begun = 0
    for record in read_records(brain / "metrics.jsonl"):
        step, event = record["step"], record["event"]
        if event == "adaptive_lr_climb":
            begun = step + 1
            found["climb"] = (1, max(1, step - 1), 0.02)
            found["edge"] = (step, step, 0.05)
        elif event == "warmup_complete":
            found["warm-up"] = (begun, max(begun, step - 1), 0.02)
        elif event == "adaptive_lr_anneal":
            found["anneal"] = (min(steps - 1, step), steps - 1, 0.02)
    return found


class Tail:
    """What a log has gained since it was opened."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._offset = log.stat().st_size if log.exists() else 0
        self._begun, self.step = False, -1

    def reached(self, step: int) -> bool:
        """Whether a run has begun and trained `step` (0: has begun)."""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._offset)
                whole = file.read().rpartition(b"\n")[0]
            self._offset += len(whole)
            for line in whole.splitlines():
                self._take(line)
        return self._begun and self.step >= step

    def _take(self, line: bytes) -> None:
        if b'"run_start"' in line or b'"run_resumed"' in line:
            self._begun, self.step = True, max(0, self.step)
        elif b'"event": "train"' in line:
            record: dict[str, Any] = json.loads(line)
            self.step = max(self.step, record["step"])


@dataclass
class Chain:
    """One brain that is trained and killed again and again."""

    bench: Bench
    folder: Path
    flags: tuple[str, ...]
    variant: Variant
    rng: random.Random
    kills: int = 0
    history: list[str] = field(default_factory=list)
    _process: Real | Fork | None = None
    _tail: Tail | None = None
    _saved: int | None = None

    @property
    def brain(self) -> Path:
        """The brain's folder."""
        return self.folder / "brain"

    @property
    def log(self) -> Path:
        """The brain's log."""
        return self.brain / "metrics.jsonl"

    def kill_at(self, moment: Moment) -> None:
        """Have the run going and kill somebody at the moment; a run that ends before is left to its end."""
        process, tail = self._going()
        if moment.step >= 0 and not until(process, lambda: tail.reached(moment.step)):
            return
        if moment.inside_save and not until(process, self._is_saving):
            return
        time.sleep(moment.wait)
        victim = self.rng.choice(self.variant.victims)
        if not self._strike(process, victim):
            return
        self.kills += 1
        self.history.append(f"{victim} in {moment.phase} at step {tail.step}+{moment.wait:.3f} s")

    def end(self) -> Done:
        """Let the run go on to its end."""
        process, _ = self._going()
        done = process.wait()
        if done.code != 0 or process.family():
            time.sleep(1)
        if family := process.family():
            process.kill_family()
            raise Judged(ORPHAN, f"{len(family)} processes outlive the run")
        return done

    def judge(self, done: Done) -> None:
        """The last resume must have succeeded."""
        check_no_traceback(done)
        if done.code != 0:
            raise Judged(WRONG_EXIT, f"exit {done.code}: {done.end}")

    def _is_saving(self) -> bool:
        return any((self.brain / "checkpoints").glob(".partial-*"))

    def _going(self) -> tuple[Real | Fork, Tail]:
        """The run in progress, or a new one that goes on from where the last was killed."""
        if self._process is None or self._tail is None or self._process.poll() is not None:
            resumable = any((self.brain / "checkpoints").glob("step-*"))
            self._check_nothing_lost()
            self._tail = Tail(self.log)
            more = ("--resume",) if resumable else ()
            start = self.bench.real if self.variant.several else self.bench.fork
            self._process = start(train_args(self.folder, *self.flags, *more), self.folder)
        return self._process, self._tail

    def _check_nothing_lost(self) -> None:
        saved = last_saved(read_records(self.log, torn=True))
        names = [path.name[5:] for path in (self.brain / "checkpoints").glob("step-*")]
        newest = max((int(name) for name in names if name.isdecimal()), default=None)
        if saved is not None and (newest is None or newest < saved):
            raise Judged(LOST, f"the log tells of a save at step {saved}, the newest there is: {newest}")

    def _strike(self, process: Real | Fork, victim: str) -> bool:
        """Kill; whether somebody was there to be killed. Waits until the others have ended, too."""
        if process.poll() is not None:
            return False
        if victim == "rank":
            ranks = [pid for pid in process.family() if pid != process.pid]
            return bool(ranks) and kill(self.rng.choice(ranks))
        if victim == "family":
            process.kill_family()
        else:
            process.send(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + ORPHAN_SECONDS
        while family := process.family():
            if time.monotonic() > deadline:
                process.kill_family()
                raise Judged(ORPHAN, f"{len(family)} workers still run {ORPHAN_SECONDS:.0f} s after their launcher")
            time.sleep(0.05)
        return True


def _check_merged(brain: Path, steps: int) -> None:
    """A run of independent workers, which is not exact after a kill: finished, finite, and logged whole."""
    records = read_records(brain / "metrics.jsonl")
    finals = [record for record in records if record["event"] == "final" and record["step"] == steps]
    if not finals:
        raise Judged(LOST, "the log has no final record")
    for record in records:
        if record["event"] in ("train", "eval") and record.get("non_finite"):
            raise Judged(SILENT, f"a number of step {record['step']} is not finite")
    trained = {record["step"] for record in records if record["event"] == "train"}
    if missing := set(range(max(trained) - 20, steps + 1)) - trained:
        raise Judged(HANG if not trained else LOST, f"step {min(missing)} is missing in the log")
