"""One part of the fuzzing, as a process: `python -m faults.fuzz_worker READER EXAMPLES SEED FOLDER BRAIN`."""

from __future__ import annotations

import copy
import json
import math
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from aios.cli.hrm_hf.origin import find_origin
from aios.errors import RunError, UserError
from aios.replay.recording import read_recording
from aios.run_view.reading import read_history
from aios.runs.brain import read_card
from aios.runs.checkpoints import find_damage, newest_valid
from aios.runs.manifest import MANIFEST_FILE, STATE_FILE
from aios.settings.config import TrainingConfig
from aios.settings.config_file import load_config_file
from aios.settings.learning_rate import auto_lr_config
from faults.records import HANG, HELD, SILENT, TRACEBACK

LIMIT = 1.0
"""Seconds of processor time for one example."""

HUGE = st.sampled_from([10**400, -(10**30), 2**63, 2**31, 1e308, 5e-324, math.inf, -math.inf, math.nan])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), HUGE, st.floats(), st.text(max_size=20),
    st.sampled_from(["", "..", "/etc/passwd", "\x00", "a" * 5000, "\ud800", "nan", "1e999", "true", "5e-5", "auto"]),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
DEEP = st.integers(1, 100_000).map(lambda depth: b"[" * depth)


class TooLong(BaseException):
    """An example that does not come back; no Exception, so that no reader swallows it."""


def _mutated(template: Any) -> st.SearchStrategy[Any]:
    """The template with up to three of its values, at any depth, replaced, removed or added."""

    @st.composite
    def mutate(draw: st.DrawFn) -> Any:
        value = copy.deepcopy(template)
        for _ in range(draw(st.integers(1, 3))):
            value = _replaced(draw, value)
        return value

    return mutate()


def _replaced(draw: st.DrawFn, value: Any) -> Any:
    """One value somewhere in it replaced by another, removed, or a new one put beside it."""
    if isinstance(value, dict) and value and draw(st.integers(0, 9)):
        key = draw(st.sampled_from(sorted(value, key=str)))
        action = draw(st.sampled_from(["into", "into", "remove", "add"]))
        if action == "remove":
            return {k: v for k, v in value.items() if k != key}
        if action == "add":
            return {**value, draw(st.text(max_size=10)): draw(VALUES)}
        return {**value, key: _replaced(draw, value[key])}
    if isinstance(value, list) and value and draw(st.booleans()):
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], _replaced(draw, value[at]), *value[at + 1 :]]
    return draw(VALUES)


def _edited(data: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with a piece cut out and another put in."""
    pieces = st.one_of(
        st.binary(max_size=30), DEEP, st.sampled_from([b"\xff\xfe", b"\n", b"{", b"}", b"null", b"1e999"])
    )
    cuts = st.tuples(st.integers(0, len(data)), st.integers(0, 60))
    return st.builds(lambda cut, piece: data[: cut[0]] + piece + data[sum(cut) :], cuts, pieces)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _texts(template: Any) -> st.SearchStrategy[bytes]:
    """JSON near the template, and bytes near that."""
    return st.one_of(_mutated(template).map(_json), _edited(_json(template)), st.binary(max_size=200), DEEP)


def log_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Logs near a real one."""
    lines = (brain / "metrics.jsonl").read_bytes().splitlines()
    picked = [json.loads(line) for line in {json.loads(line)["event"]: line for line in lines}.values()]
    record = st.sampled_from(picked).flatmap(_texts) | st.sampled_from(picked).map(_json)
    path = folder / "metrics.jsonl"

    def read(logged: list[bytes]) -> None:
        path.write_bytes(b"\n".join(logged))
        for reader in (read_history, read_recording):
            _tolerated(reader, path)

    return st.lists(record, min_size=1, max_size=12), read


def settings_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Settings of a run."""
    template = {"lr": 1e-3, "steps": 100, "amp": None, "use_moe": True, "dataset_file": "x", "preset": "tiny"}

    def read(made: tuple[str, bytes]) -> None:
        path = folder / f"settings{made[0]}"
        path.write_bytes(made[1])
        _tolerated(lambda: TrainingConfig(**load_config_file(path)))

    return _settings_texts(template), read


def adaptive_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Settings of the adaptive learning rate."""
    template = {
        "adaptive_lr": {"lr_max": 1e-2, "patience": 3, "window_size": 10, "groups": {"router": {"lr_max": 1e-3}}}
    }

    def read(made: tuple[str, bytes]) -> None:
        path = folder / f"settings{made[0]}"
        path.write_bytes(made[1])
        _tolerated(lambda: auto_lr_config(TrainingConfig(lr=1e-3, steps=500, adaptive_lr_config=str(path))))

    return _settings_texts(template), read


def _settings_texts(template: dict[str, Any]) -> st.SearchStrategy[tuple[str, bytes]]:
    def as_yaml(value: Any) -> bytes:
        try:
            return yaml.safe_dump(value).encode("utf-8", "surrogatepass")
        except yaml.YAMLError:
            return repr(value).encode("utf-8", "surrogatepass")

    aliases = st.integers(1, 12).map(_aliases)
    toml = b"lr = 1e-3\nsteps = 100\n[adaptive_lr]\nlr_max = 0.01\n[adaptive_lr.groups.router]\nlr_max = 1e-3\n"
    return st.one_of(
        st.tuples(st.just(".json"), _texts(template)),
        st.tuples(st.sampled_from([".yaml", ".yml"]), _mutated(template).map(as_yaml) | aliases | _texts(template)),
        st.tuples(st.just(".toml"), _edited(toml) | st.binary(max_size=100)),
    )


def _aliases(depth: int) -> bytes:
    """Few bytes of YAML that stand for 9**depth values."""
    lines = [b"a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    for i in range(1, depth):
        lines.append(b"a%d: &a%d [%s]" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)))
    return b"\n".join([*lines, b"lr: *a%d" % (depth - 1), b""])


def manifest_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Manifests of a checkpoint whose files stay as they were: only a manifest that vouches for them may be valid."""
    source = max((brain / "checkpoints").iterdir())
    shutil.copytree(source, folder / "checkpoints" / "step-300", dirs_exist_ok=True)
    checkpoint = folder / "checkpoints" / "step-300"
    template = json.loads((checkpoint / MANIFEST_FILE).read_text(encoding="utf-8"))

    def read(text: bytes) -> None:
        (checkpoint / MANIFEST_FILE).write_bytes(text)
        damage = find_damage(checkpoint)
        newest_valid(folder)
        if damage is None and json.loads(text)["files"].items() < template["files"].items():
            raise ValueError("a manifest that names fewer files is taken for valid")

    return _texts(template), read


def state_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Checkpoint dicts that their manifest vouches for: what a stranger may have made."""
    from faults.strangers import vouch

    source = max((brain / "checkpoints").iterdir(), key=lambda path: int(path.name[5:]))
    checkpoint = folder / "brain" / "checkpoints" / source.name
    shutil.copytree(source, checkpoint)
    template = torch.load(checkpoint / STATE_FILE, weights_only=True)
    small = {key: value for key, value in template.items() if key not in ("optimizer", "rng")}
    given_flags = {"resume": True, "bundle_dir": str(folder), "brain_name": "brain", "steps": 400}

    def read(state: Any) -> None:
        torch.save(state, checkpoint / STATE_FILE)
        vouch(checkpoint)
        _tolerated(find_origin, given_flags)

    return _mutated(small), read


def card_reader(folder: Path, brain: Path) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Brain cards."""
    template = json.loads((brain / "brain.json").read_text(encoding="utf-8"))

    def read(text: bytes) -> None:
        (folder / "brain.json").write_bytes(text)
        _tolerated(read_card, folder)

    return _texts(template), read


READERS = {
    "log": log_reader,
    "settings": settings_reader,
    "adaptive_settings": adaptive_reader,
    "manifest": manifest_reader,
    "state": state_reader,
    "card": card_reader,
}


def _tolerated(read: Callable[..., object], *args: object) -> None:
    """Call a reader; the project's own errors are what it is allowed to raise."""
    try:
        read(*args)
    except (UserError, RunError) as error:
        if len(str(error)) > 2000:
            raise ValueError(f"a message of {len(str(error))} characters") from error


def _short(example: Any) -> str:
    """The example for a report, long runs of one character told as their number."""
    return re.sub(r"(.)\1{20,}", lambda run: f"{run[1]}*{len(run[0])}", repr(example))[:400]


def _alarm(number: int, frame: FrameType | None) -> None:
    raise TooLong


def main(reader: str, examples: int, seed_number: int, folder: Path, brain: Path) -> dict[str, Any]:
    """Feed a reader; what was found first."""
    strategy, read = READERS[reader](folder, brain)
    state: dict[str, Any] = {"verdict": HELD, "detail": "", "examples": 0}
    signal.signal(signal.SIGVTALRM, _alarm)

    @seed(seed_number)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck), report_multiple_bugs=False,
    )  # fmt: skip
    @given(strategy)
    def feed(example: Any) -> None:
        if state["verdict"] != HELD:
            return
        state["examples"] += 1
        signal.setitimer(signal.ITIMER_VIRTUAL, 10 * LIMIT)
        begun = time.process_time()
        try:
            read(example)
        except TooLong:
            state.update(verdict=HANG, detail=f"{reader}: over {10 * LIMIT:.0f} s for {_short(example)}")
        except Exception as error:  # noqa: BLE001  anything that a reader lets through is what is looked for
            verdict = SILENT if reader == "manifest" and isinstance(error, ValueError) else TRACEBACK
            state.update(verdict=verdict, detail=f"{reader}: {error!r} for {_short(example)}")
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        seconds = time.process_time() - begun
        if state["verdict"] == HELD and seconds > LIMIT:
            state.update(verdict=HANG, detail=f"{reader}: {seconds:.1f} s for {_short(example)}")

    feed()
    return state


if __name__ == "__main__":
    name, count, number, work, trained = sys.argv[1:]
    print(json.dumps(main(name, int(count), int(number), Path(work), Path(trained))))
