"""Checkpoints are complete or invisible; a damaged one is skipped with its reason and never counts as one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aios.errors import UserError
from aios.runs.brain import holds_brain, list_checkpoints
from aios.runs.checkpoints import FORMAT_VERSION, find_damage, load_state, newest_valid, save_checkpoint
from small_checkpoints import reseal, save_small, small_state, write_model


def names(brain: Path) -> list[str]:
    """Everything in the folder of the checkpoints."""
    return sorted(path.name for path in (brain / "checkpoints").iterdir())


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9):
        save_small(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-10", "step-9", "step-2"]
    path, skipped = newest_valid(tmp_path)
    assert path is not None
    assert (path.name, skipped) == ("step-10", [])
    assert load_state(path)["step"] == 10


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save_small(tmp_path, 5)
    again = save_small(tmp_path, 5)
    assert find_damage(again) is None
    assert names(tmp_path) == ["step-5"]


def _truncate(path: Path) -> None:
    (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:-10])


def flip_a_bit(path: Path) -> None:
    """Damage the weights of a checkpoint."""
    data = bytearray((path / "model.safetensors").read_bytes())
    data[500] ^= 1
    (path / "model.safetensors").write_bytes(data)


def write_manifest(text: str | bytes) -> Callable[[Path], object]:
    """A damage: another manifest."""
    return lambda path: (path / "manifest.json").write_bytes(text.encode() if isinstance(text, str) else text)


def _listing(name: str, size: str = "1") -> Callable[[Path], None]:
    """A damage: a manifest that lists one more file."""

    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"][name] = {"size": 0, "sha256": "0" * 64}
        text = json.dumps(manifest, indent=None)
        (path / "manifest.json").write_text(text.replace('"size": 0,', f'"size": {size},'))

    return damage


def _instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """A damage: something else in the place of a file."""

    def damage(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return damage


def _unlisted(*files: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        manifest = json.loads((path / "manifest.json").read_text())
        manifest["files"] = {name: entry for name, entry in manifest["files"].items() if name not in files}
        (path / "manifest.json").write_text(json.dumps(manifest))

    return damage


def _moved_outside(path: Path) -> None:
    """The folder itself is a link to what was there."""
    outside = path.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def _a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("no folder")


def _fill_outside(path: Path) -> None:
    (path.parent / "outside").write_bytes(b"")
    _listing("../outside", "0")(path)


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "truncated": ("bytes instead of", _truncate),
    "flipped bit": ("do not match their checksum", flip_a_bit),
    "missing file": ("'model.safetensors' is missing", lambda path: (path / "model.safetensors").unlink()),
    "no manifest": ("it has no manifest", lambda path: (path / "manifest.json").unlink()),
    "half a manifest": ("its manifest is damaged", write_manifest("{")),
    "a list": ("its manifest is damaged", write_manifest("[]")),
    "a number": ("its manifest is damaged", write_manifest("1e999")),
    "deep": ("its manifest is damaged", write_manifest("[" * 200_000)),
    "deep in files": ("its manifest is damaged", write_manifest('{"files": ' + '{"a":' * 100_000)),
    "no UTF-8": ("its manifest is damaged", write_manifest(b'{"files": {"\xff": 1}}')),
    "endless": ("its manifest is damaged", _instead("manifest.json", lambda path: path.symlink_to("/dev/zero"))),
    "too long": ("its manifest is damaged", write_manifest(" " * (1 << 24) + "{}")),
    "manifest a folder": ("its manifest is damaged", _instead("manifest.json", Path.mkdir)),
    "manifest a FIFO": ("its manifest is damaged", _instead("manifest.json", os.mkfifo)),
    "no files": ("lists no state.pt", write_manifest('{"files": {}}')),
    "no state listed": ("lists no state.pt", _unlisted("state.pt")),
    "no config listed": ("lists no config.json", _unlisted("config.json")),
    "no weights listed": ("lists no weights", _unlisted("model.safetensors")),
    **{
        f"size {size}": ("its manifest is damaged", _listing("model.safetensors", size))
        for size in ("1e999", "NaN", "-1", "true", "null", '"7"', "7.0", "[]", "1" + "0" * 400, "1" + "0" * 5000)
    },
    "hash": ("its manifest is damaged", write_manifest('{"files": {"state.pt": {"size": 1, "sha256": "zz"}}}')),
    "absolute": ("'/etc/passwd' is missing", _listing("/etc/passwd")),
    "outside": ("'../outside' is missing", _fill_outside),
    "empty name": ("is missing", _listing("")),
    "dot": ("is missing", _listing("./state.pt")),
    "surrogate": ("is missing", _listing("\ud800")),
    "NUL": ("is missing", _listing("a\0b")),
    "long name": ("cannot be read (File name too long)", _listing("n" * 300)),
    "endless name": ("is missing", _listing("a/" * 500_000)),
    "link": ("is missing", _instead("config.json", lambda path: path.symlink_to("/etc/hostname"))),
    "loop": ("is missing", _instead("config.json", lambda path: path.symlink_to("config.json"))),
    "device": ("is missing", _instead("config.json", lambda path: path.symlink_to("/dev/zero"))),
    "FIFO": ("'config.json' is missing", _instead("config.json", os.mkfifo)),
    "a folder for a file": ("'config.json' is missing", _instead("config.json", Path.mkdir)),
    "step a file": ("it is no folder", _a_file),
    "step a link": ("it is no folder", _moved_outside),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.timeout(10)
def test_damaged_newest_is_skipped_for_the_one_before(tmp_path: Path, damage: str) -> None:
    reason, inflict = DAMAGES[damage]
    save_small(tmp_path, 1)
    inflict(save_small(tmp_path, 2))
    path, skipped = newest_valid(tmp_path)
    assert path == tmp_path / "checkpoints" / "step-1"
    assert len(skipped) == 1
    assert reason in skipped[0].reason
    assert len(skipped[0].reason) < 300
    save_small(tmp_path, 3, keep=1)  # nor does what lies there hinder the next save
    assert newest_valid(tmp_path)[0] == tmp_path / "checkpoints" / "step-3"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_checkpoint_without_rights_is_skipped(tmp_path: Path) -> None:
    save_small(tmp_path, 1)
    newest = save_small(tmp_path, 2)
    newest.chmod(0)
    try:
        path, skipped = newest_valid(tmp_path)
    finally:
        newest.chmod(0o700)
    assert path == tmp_path / "checkpoints" / "step-1"
    assert "cannot be read (Permission denied)" in skipped[0].reason


@pytest.mark.parametrize("name", ["step-" + "9" * 30, "step-²", "step-٣", "step-007", "step-", "step--1", "step-1x"])
def test_names_that_are_no_steps_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert not holds_brain(tmp_path)
    save_small(tmp_path, 2, keep=1)
    save_small(tmp_path, 3, keep=1)
    assert names(tmp_path) == sorted([name, "step-3"])


def test_checkpoints_that_are_a_file_hold_no_brain(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("")
    assert not holds_brain(tmp_path)
    assert newest_valid(tmp_path) == (None, [])


STATES: dict[str, tuple[str, Any]] = {
    "another step": ("step is 7, not 2", {"step": 7}),
    "step a text": ("step is '2', not 2", {"step": "2"}),
    "no format": ("has no format_version", {"format_version": ...}),
    "format a text": ("format_version is 'x', not a whole number", {"format_version": "x"}),
    "no data": ("has no data", {"data": ...}),
    "samples infinite": ("data.samples is inf, not a whole number", {"data": {"id": "", "samples": float("inf")}}),
    "huge samples": ("data.samples is a whole number of 1329 bits", {"data": {"id": "", "samples": 10**400}}),
    "no moments": ("optimizer is None", {"optimizer": None}),
    "moments": (
        "optimizer.state.0 is not what AdamW or",
        {"optimizer": {"state": {0: {}}, "param_groups": [{}]}},
    ),
    "rng": (
        "rng.torch is not the state",
        {"rng": {"torch": torch.zeros(9, dtype=torch.uint8), "cuda": [], "python": 0}},
    ),
    "rng of tensors": (
        "rng.python is [tensor([0., 0.])",
        {"rng": {"torch": torch.get_rng_state(), "cuda": [], "python": [torch.zeros(2), [0] * 625, None]}},
    ),
    "learning rate": ("AutoLR state: version = None", {"adaptive_lr": {}}),
    "learning rate of another step": ("adaptive_lr is of step 1", {"adaptive_lr": small_state(1)["adaptive_lr"]}),
    "plan of the older form": ("learning rate plan is a list", {"lr_plan": [], "adaptive_lr": None}),
    "workers": ("optimizer is a dict, not a list", {"worker_steps": [2, 2]}),
    "no workers": ("worker_steps has 0 entries", {"worker_steps": []}),
}


@pytest.mark.parametrize("case", STATES)
def test_state_that_cannot_be_resumed_is_skipped_and_refused(tmp_path: Path, case: str) -> None:
    reason, entries = STATES[case]
    save_small(tmp_path, 1)
    path = save_small(tmp_path, 2)
    state = {**small_state(2), "format_version": FORMAT_VERSION, **entries}
    torch.save({key: value for key, value in state.items() if value is not ...}, path / "state.pt")
    reseal(path)
    found, skipped = newest_valid(tmp_path)
    assert found == tmp_path / "checkpoints" / "step-1"
    assert reason in skipped[0].reason
    with pytest.raises(UserError, match="cannot be resumed"):
        load_state(path)


@pytest.mark.parametrize("data", [b"", b"garbage", b"PK\x03\x04", b"\x80\x02N.", b"\x80\x05]" + b"(" * 5000])
def test_state_of_other_bytes_is_skipped_and_refused(tmp_path: Path, data: bytes) -> None:
    path = save_small(tmp_path, 2)
    (path / "state.pt").write_bytes(data)
    reseal(path)
    assert "state.pt cannot be read" in newest_valid(tmp_path)[1][0].reason
    with pytest.raises(UserError, match="cannot be read"):
        load_state(path)


def test_interrupted_save_is_invisible_and_cleared_by_the_next(tmp_path: Path) -> None:
    def dies(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, small_state(3), dies, keep=3)
    assert newest_valid(tmp_path) == (None, [])
    assert not holds_brain(tmp_path)
    save_small(tmp_path, 4)
    assert names(tmp_path) == ["step-4"]


def test_damaged_checkpoints_do_not_push_out_valid_ones(tmp_path: Path) -> None:
    for step in (1, 2):
        save_small(tmp_path, step, keep=4)
    for step in (8, 9):
        flip_a_bit(save_small(tmp_path, step, keep=4))
    save_small(tmp_path, 3, keep=2)
    assert names(tmp_path) == ["step-2", "step-3", "step-8", "step-9"]
    found, skipped = newest_valid(tmp_path)
    assert found == tmp_path / "checkpoints" / "step-3"
    assert len(skipped) == 2
    save_small(tmp_path, 10, keep=2)  # past the damaged ones: they stay until two valid ones are newer
    assert names(tmp_path) == ["step-10", "step-3", "step-8", "step-9"]
    save_small(tmp_path, 11, keep=2)
    assert names(tmp_path) == ["step-10", "step-11"]


def test_damage_that_comes_between_two_saves_is_noticed(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_small(tmp_path, step, keep=2)
    flip_a_bit(tmp_path / "checkpoints" / "step-3")
    save_small(tmp_path, 4, keep=2)
    assert names(tmp_path) == ["step-2", "step-3", "step-4"]


def set_aside(path: Path) -> Path:
    """What a kill between the two renames of a step saved again leaves of the old checkpoint."""
    return path.rename(path.with_name(f".partial-replaced-{path.name}"))


def test_checkpoint_set_aside_counts_and_is_put_back(tmp_path: Path) -> None:
    save_small(tmp_path, 1)
    aside = set_aside(save_small(tmp_path, 2))
    assert holds_brain(tmp_path)
    assert newest_valid(tmp_path) == (aside, [])
    assert load_state(aside)["step"] == 2
    save_small(tmp_path, 3)
    assert names(tmp_path) == ["step-1", "step-2", "step-3"]


def test_checkpoint_set_aside_outlives_a_damaged_successor(tmp_path: Path) -> None:
    aside = set_aside(save_small(tmp_path, 2))
    flip_a_bit(save_again := save_small_beside(tmp_path, 2, aside))
    assert newest_valid(tmp_path)[0] == aside
    save_small(tmp_path, 3)
    assert names(tmp_path) == ["step-2", "step-3"]
    assert find_damage(save_again) is None


def test_checkpoint_set_aside_goes_once_its_successor_is_there(tmp_path: Path) -> None:
    aside = set_aside(save_small(tmp_path, 2))
    save_small_beside(tmp_path, 2, aside)
    assert newest_valid(tmp_path) == (tmp_path / "checkpoints" / "step-2", [])
    save_small(tmp_path, 2)
    assert names(tmp_path) == ["step-2"]


def save_small_beside(brain: Path, step: int, aside: Path) -> Path:
    """What a kill before the old checkpoint was cleared away leaves: both."""
    hidden = aside.rename(brain / "kept")
    path = save_small(brain, step)
    hidden.rename(aside)
    return path


def test_newer_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    torch.save({"step": 1, "format_version": FORMAT_VERSION + 1}, path / "state.pt")
    reseal(path)
    assert newest_valid(tmp_path) == (path, [])  # whole: an older one must not be taken in its place unasked
    with pytest.raises(UserError, match="update aios"):
        load_state(path)


def test_opening_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = save_small(tmp_path, 1)
    torch.save({"step": 1, "format_version": 1, "evil": Evil()}, path / "state.pt")
    reseal(path)
    with pytest.raises(UserError, match="UnpicklingError"):
        load_state(path)
    assert newest_valid(tmp_path)[0] is None
    assert not (tmp_path / "ran").exists()


def test_manifest_is_plain_json_over_every_file(tmp_path: Path) -> None:
    path = save_small(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"config.json", "model.safetensors", "state.pt"}


def test_files_in_folders_of_a_checkpoint_are_vouched_for(tmp_path: Path) -> None:
    def write(folder: Path) -> None:
        write_model(folder)
        (folder / "adapter").mkdir()
        (folder / "adapter" / "adapter_config.json").write_text("{}")

    path = save_checkpoint(tmp_path, small_state(1), write, keep=1).path
    assert find_damage(path) is None
    (path / "adapter" / "adapter_config.json").write_text("[]")
    assert find_damage(path) == "the contents of 'adapter/adapter_config.json' do not match their checksum"


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("unable to mmap 88 bytes from file <state.pt>: Cannot allocate memory (12)")]
)
def test_a_machine_short_of_memory_passes_over_no_sound_checkpoint(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_small(tmp_path, step)

    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(type(error)):
        newest_valid(tmp_path)
    with pytest.raises(type(error)):
        load_state(tmp_path / "checkpoints" / "step-2")
