"""Whatever a manifest says, reading it ends soon, in a sentence, and inside its folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aios.runs.checkpoints import find_damage
from small_checkpoints import save_small

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)
FAST = settings(max_examples=100, deadline=1000, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid checkpoint whose manifest the tests overwrite; what it was lies beside it."""
    path = save_small(tmp_path_factory.mktemp("brain"), 1)
    shutil.copy(path / "manifest.json", path.parent / "written.json")
    return path


@pytest.fixture(scope="module")
def manifest(checkpoint: Path) -> dict[str, Any]:
    """What the trainer wrote."""
    written: dict[str, Any] = json.loads((checkpoint.parent / "written.json").read_text())
    return written


def damage_of(checkpoint: Path, manifest: bytes) -> str:
    """What is found wrong; fails where nothing is, or at unbounded length."""
    (checkpoint / "manifest.json").write_bytes(manifest)
    damage = find_damage(checkpoint)
    assert damage is not None
    assert len(damage) < 500
    return damage


@FAST
@given(data=st.binary(max_size=300))
def test_any_bytes(checkpoint: Path, data: bytes) -> None:
    assert damage_of(checkpoint, data) == "its manifest is damaged"


@FAST
@given(files=ANY, entry=ANY)
def test_any_json(checkpoint: Path, files: Any, entry: Any) -> None:
    damage_of(checkpoint, json.dumps({"files": files}).encode())  # which fails where nothing is found
    damage_of(checkpoint, json.dumps({"files": {"state.pt": entry}}).encode())


@FAST
@given(name=st.text(st.characters(), max_size=400) | st.sampled_from(["..", ".", "/", "../step-1/state.pt", "//x"]))
def test_any_name_of_one_file_more(checkpoint: Path, manifest: dict[str, Any], name: str) -> None:
    if name in manifest["files"]:
        return
    files = {**manifest["files"], name: manifest["files"]["state.pt"]}
    damage = damage_of(checkpoint, json.dumps({"files": files}).encode())
    assert "is missing" in damage or "cannot be read" in damage


@FAST
@given(data=st.data())
def test_any_byte_of_a_valid_manifest_changed(checkpoint: Path, manifest: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(json.dumps(manifest).encode())
    at, byte = data.draw(st.integers(0, len(text) - 1)), data.draw(st.integers(0, 255))
    text[at] = byte
    (checkpoint / "manifest.json").write_bytes(text)
    damage = find_damage(checkpoint)
    assert damage is None or len(damage) < 500


def test_the_manifest_as_it_was_is_valid_again(checkpoint: Path, manifest: dict[str, Any]) -> None:
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    assert find_damage(checkpoint) is None


def test_a_file_that_the_manifest_does_not_name_is_damage(checkpoint: Path, manifest: dict[str, Any]) -> None:
    for name in manifest["files"]:
        files = {other: entry for other, entry in manifest["files"].items() if other != name}
        damage = damage_of(checkpoint, json.dumps({**manifest, "files": files}).encode())
        assert name in damage or "lists no weights" in damage
