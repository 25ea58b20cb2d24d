"""Resuming from damaged or strange checkpoints: the one before, or one sentence; never a traceback, a hang, a loss."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.origin import Origin, find_origin
from aios.cli.hrm_hf.run_setup import Setup, build_run, prepare
from aios.cli.hrm_hf.train_epoch import train_epoch
from aios.engines.zero_shards import read_model_states, read_shards
from aios.errors import RunError, UserError
from aios.runs.checkpoint_state import find_flaw
from aios.runs.checkpoints import load_state, newest_valid
from small_checkpoints import reseal
from training_process import read_log, run_aios, train, train_args

STRACE = shutil.which("strace")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain with checkpoints of the steps 10, 20 and 30."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, "--steps=30", "--lr=1e-3", "--save-every=10", "--adaptive-lr-profile=auto", "--warmup-steps=2")
    return folder


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(trained, tmp_path / "copy")
    return tmp_path / "copy"


def change_state(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a checkpoint's state, and the manifest with it."""
    state = torch.load(path / "state.pt", weights_only=True)
    change(state)
    torch.save(state, path / "state.pt")
    reseal(path)


def test_resume_passes_over_all_that_cannot_be_resumed(copy: Path) -> None:
    checkpoints = copy / "brain" / "checkpoints"
    (checkpoints / "step-30" / "manifest.json").unlink()
    os.mkfifo(checkpoints / "step-30" / "manifest.json")
    change_state(checkpoints / "step-20", lambda state: state.pop("adaptive_lr"))
    (checkpoints / "step-40").write_text("no folder")
    done = train(copy, "--resume")
    for step in (40, 30, 20):
        assert f"Skipped the damaged checkpoint {checkpoints / f'step-{step}'}" in done.stdout.replace("\n", "")
    assert [record["step"] for record in read_log(copy / "brain", "run_resumed")] == [10]
    assert newest_valid(copy / "brain")[0] == checkpoints / "step-30"


def test_nothing_but_damage_is_one_sentence_with_a_way_out(copy: Path) -> None:
    for path in (copy / "brain" / "checkpoints").iterdir():
        (path / "manifest.json").write_text("[" * 100_000)
    done = run_aios(*train_args(copy, "--resume"))
    assert done.returncode == 2
    assert "There is no checkpoint to resume" in done.stderr
    assert "another --brain-name" in done.stderr
    assert "Traceback" not in done.stderr


def test_moments_of_another_model_are_refused(copy: Path) -> None:
    def shrink(state: dict[str, Any]) -> None:
        moment = state["optimizer"]["state"][0]
        moment["exp_avg"], moment["exp_avg_sq"] = torch.zeros(3), torch.zeros(3)

    change_state(copy / "brain" / "checkpoints" / "step-30", shrink)
    done = run_aios(*train_args(copy, "--resume", "--steps=40"))
    assert done.returncode == 2
    assert "The optimizer state has moments of shape (3,)" in done.stderr


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_kill_between_the_two_renames_of_a_step_saved_again_loses_nothing(copy: Path) -> None:
    brain = copy / "brain"
    newest = brain / "checkpoints" / "step-30"
    before = (newest / "state.pt").read_bytes()
    # Save it once more, and die when the old one has gone and the new one is not there: at the second rename.
    code = (
        "import sys; from pathlib import Path; from aios.runs.checkpoints import load_state, save_checkpoint;"
        "import shutil; brain = Path(sys.argv[1]); old = brain / 'checkpoints' / 'step-30';"
        "save_checkpoint(brain, load_state(old), lambda to: [shutil.copy(old / n, to / n) for n in"
        " ('config.json', 'model.safetensors')], 3)"
    )
    renames = "rename,renameat,renameat2"
    trace = ("-e", f"trace={renames}", "-e", f"inject={renames}:error=EINTR:signal=SIGKILL:when=2")
    done = subprocess.run(
        [str(STRACE), "-f", "-qq", "-o", "/dev/null", *trace, sys.executable, "-c", code, str(brain)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert not newest.exists()
    assert (brain / "checkpoints" / ".partial-replaced-step-30" / "state.pt").read_bytes() == before

    done = run_aios(*train_args(copy, "--steps=30"))
    assert done.returncode == 2  # a fresh run must not overwrite it, and the way out that it names is one
    assert "--resume" in done.stderr
    train(copy, "--resume", "--steps=32")
    assert [record["step"] for record in read_log(brain, "run_resumed")][-1] == 30
    assert newest_valid(brain) == (brain / "checkpoints" / "step-32", [])
    assert sorted(p.name for p in (brain / "checkpoints").iterdir()) == ["step-20", "step-30", "step-32"]


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the entries of a checkpoint dict are; of long lists the first ones."""
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from leaves(inner, (*path, key))


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of `value` with `new` at `path`; `...` takes the entry out."""
    if not path:
        return new
    copied = value.copy()
    inner = put(copied[path[0]], path[1:], new)
    if inner is ...:
        del copied[path[0]]
    else:
        copied[path[0]] = inner
    return copied


STRANGE = [..., None, True, -1, 0, 7, 2**70, 10**400, 1e999, math.nan, -0.5, "", "x", [], {}, [1, "a"], {"a": {}}]
STRANGE += [torch.zeros(2), torch.zeros(()), torch.zeros(5, dtype=torch.uint8), 1e300]


@pytest.fixture(scope="module")
def origin(trained: Path) -> Origin:
    """What the newest but one checkpoint resumes."""
    shutil.copytree(trained, trained / "earlier")
    shutil.rmtree(trained / "earlier" / "brain" / "checkpoints" / "step-30")
    return find_origin({"bundle_dir": str(trained / "earlier"), "brain_name": "brain", "resume": True})


@pytest.fixture(scope="module")
def setup(origin: Origin) -> Setup:
    """Model and data of the resumed run."""
    return prepare(origin, lambda done, total: None)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_state_is_refused_or_trains_on(origin: Origin, setup: Setup, data: st.DataObject) -> None:
    assert origin.state is not None
    where = data.draw(st.sampled_from([path for path in leaves(origin.state) if path[0] != "config"]))
    state = put(origin.state, where, data.draw(st.sampled_from(STRANGE)))
    if find_flaw(state, 20) is not None:
        return
    with suppress(UserError, RunError):
        run = build_run(replace(origin, state=state), setup, lambda record: None)
        begin_learning_rate(run, state)
        run.auto.pause_at(22)
        train_epoch(run, lambda: None, lambda: None)


@settings(max_examples=100, deadline=1000, suppress_health_check=list(HealthCheck))
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.sampled_from(["rng"]), inner),
    )
)
def test_any_value_has_a_flaw_that_is_named_shortly(value: Any) -> None:
    flaw = find_flaw(value, 1)
    assert flaw is not None
    assert len(flaw) < 300


def test_state_of_a_real_run_has_no_flaw(trained: Path) -> None:
    for path in (trained / "brain" / "checkpoints").iterdir():
        assert load_state(path)["step"] in (10, 20, 30)


class Evil:
    """Unpickled, it leaves a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("name", ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "mp_rank_00_model_states.pt"])
def test_files_of_deepspeeds_run_no_code_and_are_refused(tmp_path: Path, name: str) -> None:
    pytest.importorskip("deepspeed")
    torch.save({"optimizer_state_dict": Evil(tmp_path / "ran"), "dp_world_size": 1}, tmp_path / name)
    read = read_shards if "optim" in name else read_model_states
    with pytest.raises(UserError, match="cannot be read"):
        read(tmp_path)
    assert not (tmp_path / "ran").exists()
    torch.save({"optimizer_state_dict": 1, "dp_world_size": "1"}, tmp_path / name)
    with pytest.raises(UserError, match="DeepSpeed"):
        read(tmp_path)
