"""A checkpoint that somebody else wrote chooses no file of this machine to write to, to cut or to remove."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from training_process import read_log, run_aios, train

DOCUMENT = "the only copy, and no newline at its end"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a brain of two steps."""
    bundle = tmp_path_factory.mktemp("trained")
    train(bundle, "--steps=2", "--lr=1e-3", "--eval-every=0")
    return bundle


@pytest.fixture
def bundle(trained: Path, tmp_path: Path) -> Path:
    """A copy of it; beside it there is room for what is not the brain's."""
    return shutil.copytree(trained, tmp_path / "bundle")


def rewrite(bundle: Path, **settings: Any) -> None:
    """Put `settings` into the config of the brain's checkpoint, and vouch for it, as any stranger can."""
    folder = bundle / "brain" / "checkpoints" / "step-2"
    state = torch.load(folder / "state.pt", weights_only=True)
    state["config"].update(settings)
    torch.save(state, folder / "state.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    data = (folder / "state.pt").read_bytes()
    manifest["files"]["state.pt"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def outside(bundle: Path) -> dict[Path, bytes | None]:
    """All that lies beside the bundle."""
    found = (path for path in bundle.parent.rglob("*") if not path.is_relative_to(bundle))
    return {path: path.read_bytes() if path.is_file() else None for path in found}


def test_no_place_outside_the_brain_is_inherited_and_each_is_named(bundle: Path) -> None:
    profile, letter, board = bundle.parent / "profile", bundle.parent / "letter", bundle.parent / "board"
    (bundle / "brain" / "way").symlink_to(bundle.parent)
    for document in (profile, letter):
        document.write_text(DOCUMENT)
    rewrite(
        bundle,
        log_file=str(bundle / "brain" / ".." / ".." / "profile"),
        stop_file=str(bundle / "brain" / "way" / "letter"),
        tensorboard=str(board),
        bundle_dir=str(bundle.parent / "elsewhere"),
        brain_name="../up",
    )
    before = outside(bundle)
    done = train(bundle, "--resume", "--steps=4")
    assert outside(bundle) == before
    for flag in ("--log-file", "--stop-file", "--tensorboard"):
        assert f"The resumed run's {flag} " in done.stdout
        assert f"give {flag} again" in done.stdout
    assert [r["step"] for r in read_log(bundle / "brain", "train")] == [1, 2, 3, 4]


def test_no_place_in_the_home_folder_is_inherited(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(bundle.parent))
    monkeypatch.setenv("AIOS_CACHE_DIR", str(bundle / "cache"))
    rewrite(bundle, log_file="~/new.jsonl")
    before = outside(bundle)
    args = ("hrm-hf", "train", "--bundle-dir=..", "--brain-name=brain", "--resume", "--steps=3")
    done = run_aios(*args, folder=bundle / "brain")  # in which a folder `~` would be the brain's own
    assert done.returncode == 0, done.stderr
    assert "give --log-file again" in done.stdout
    assert outside(bundle) == before


def test_what_is_given_again_is_used_without_a_word(bundle: Path) -> None:
    log = bundle.parent / "log.jsonl"
    rewrite(bundle, log_file=str(log))
    done = train(bundle, "--resume", "--steps=3", f"--log-file={log}")
    assert "not taken over" not in done.stdout
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "final"


def test_places_inside_the_brain_are_inherited_but_nothing_foreign_is_touched(bundle: Path) -> None:
    inside = bundle / "brain" / "logs" / "second.jsonl"
    rewrite(bundle, log_file=str(inside))
    done = train(bundle, "--resume", "--steps=3")
    assert "not taken over" not in done.stdout
    assert json.loads(inside.read_text().splitlines()[-1])["event"] == "final"
    shutil.rmtree(bundle / "brain" / "checkpoints" / "step-3")
    for place in ("log_file", "stop_file"):
        rewrite(bundle, **{"log_file": None, place: str(bundle / "brain" / "config.json")})
        before = (bundle / "brain" / "config.json").read_bytes()
        done = run_aios("hrm-hf", "train", f"--bundle-dir={bundle}", "--brain-name=brain", "--resume", "--steps=4")
        assert done.returncode == 2
        assert f"--{place.replace('_', '-')}" in done.stderr
        assert (bundle / "brain" / "config.json").read_bytes() == before


def test_a_log_in_the_brain_that_leads_to_a_document_is_refused(bundle: Path) -> None:
    document, log = bundle.parent / "document", bundle / "brain" / "metrics.jsonl"
    document.write_text(DOCUMENT)
    log.unlink()
    for target in (document, bundle.parent / "new"):
        log.symlink_to(target)
        before = outside(bundle)
        done = run_aios("hrm-hf", "train", f"--bundle-dir={bundle}", "--brain-name=brain", "--resume", "--steps=4")
        assert done.returncode == 2
        assert f"The log {log} is " in done.stderr
        assert outside(bundle) == before
        log.unlink()


def test_a_swap_folder_in_an_inherited_deepspeed_file_must_be_given_again(bundle: Path) -> None:
    settings = bundle.parent / "ds.json"
    offload = {"device": "nvme", "nvme_path": str(bundle.parent)}
    settings.write_text(json.dumps({"zero_optimization": {"stage": 3, "offload_param": offload}}))
    folder = bundle / "brain" / "checkpoints" / "step-2"
    state = torch.load(folder / "state.pt", weights_only=True)
    torch.save(state | {"zero_stage": 3}, folder / "state.pt")
    rewrite(bundle, deepspeed_config=str(settings))
    done = run_aios("hrm-hf", "train", f"--bundle-dir={bundle}", "--brain-name=brain", "--resume", "--steps=4")
    assert done.returncode == 2
    assert "nvme_path of its offload_param" in done.stderr
    assert "give --deepspeed-config again" in done.stderr
