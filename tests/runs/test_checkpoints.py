"""Checkpoints are complete or invisible; a damaged one is skipped with its reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aios.errors import UserError
from aios.runs.brain import list_checkpoints
from aios.runs.checkpoints import FORMAT_VERSION, find_damage, load_state, newest_valid, save_checkpoint


def save(brain: Path, step: int, keep: int = 3) -> Path:
    def weights(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(bytes([step]) * 1000)

    return save_checkpoint(brain, {"step": step, "rng": torch.get_rng_state()}, weights, keep).path


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (1, 2, 10, 9):
        save(tmp_path, step)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-10", "step-9", "step-2"]
    path, skipped = newest_valid(tmp_path)
    assert path is not None
    assert (path.name, skipped) == ("step-10", [])
    assert load_state(path)["step"] == 10


def test_saving_a_step_again_replaces_it(tmp_path: Path) -> None:
    save(tmp_path, 5)
    again = save(tmp_path, 5)
    assert find_damage(again) is None
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-5"]


def _truncate(path: Path) -> None:
    (path / "state.pt").write_bytes((path / "state.pt").read_bytes()[:-10])


def _flip_a_bit(path: Path) -> None:
    data = bytearray((path / "model.safetensors").read_bytes())
    data[500] ^= 1
    (path / "model.safetensors").write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "bytes instead of": _truncate,
    "do not match their checksum": _flip_a_bit,
    "model.safetensors is missing": lambda path: (path / "model.safetensors").unlink(),
    "it has no manifest": lambda path: (path / "manifest.json").unlink(),
    "its manifest is damaged": lambda path: (path / "manifest.json").write_text("{"),
    "manifest is damaged": lambda path: (path / "manifest.json").write_text("[]"),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_damaged_newest_is_skipped_for_the_one_before(tmp_path: Path, reason: str) -> None:
    save(tmp_path, 1)
    DAMAGES[reason](save(tmp_path, 2))
    path, skipped = newest_valid(tmp_path)
    assert path == tmp_path / "checkpoints" / "step-1"
    assert len(skipped) == 1
    assert reason in skipped[0].reason


def test_interrupted_save_is_invisible_and_cleared_by_the_next(tmp_path: Path) -> None:
    def dies(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, {"step": 3}, dies, keep=3)
    assert newest_valid(tmp_path) == (None, [])
    save(tmp_path, 4)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-4"]


def test_newer_format_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    torch.save({"step": 1, "format_version": FORMAT_VERSION + 1}, path / "state.pt")
    with pytest.raises(UserError, match="update aios"):
        load_state(path)


def test_opening_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    path = save(tmp_path, 1)
    torch.save({"step": 1, "format_version": 1, "evil": Evil()}, path / "state.pt")
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        load_state(path)
    assert not (tmp_path / "ran").exists()


def test_manifest_is_plain_json_over_every_file(tmp_path: Path) -> None:
    path = save(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"model.safetensors", "state.pt"}
