"""The published files of a brain: copies of a checkpoint's, replaced whole; the card survives any damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aios.file_names import BRAIN_FILE
from aios.runs.brain import BrainCard, card_bytes, creation_time, read_card
from aios.runs.checkpoints import save_checkpoint
from aios.runs.publishing import publish

FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "base.safetensors")


def checkpoint(brain: Path, *names: str, step: int = 1) -> Path:
    """A checkpoint with files of these names, each holding its name and the step."""

    def write(folder: Path) -> None:
        for name in (*names, BRAIN_FILE):
            (folder / name).write_text(f"{name} {step}")

    return save_checkpoint(brain, {"step": step, "rng": torch.get_rng_state()}, write, keep=3).path


def shown(brain: Path) -> list[str]:
    return sorted(path.name for path in brain.iterdir() if path.name != "checkpoints")


def test_a_checkpoints_files_are_shown_but_for_those_of_a_resume(tmp_path: Path) -> None:
    done = publish(tmp_path, checkpoint(tmp_path, *FILES), ("base.safetensors",))
    assert shown(tmp_path) == [BRAIN_FILE, "config.json", "model.safetensors", "tokenizer.json", FILES[3]]
    assert (done.replaced, done.removed) == (shown(tmp_path), [])
    assert publish(tmp_path, checkpoint(tmp_path, *FILES), ("base.safetensors",)) == ([], [])


def test_leftovers_of_another_model_or_tokenizer_go_and_nothing_else(tmp_path: Path) -> None:
    for name in ("model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.txt", "notes.txt"):
        (tmp_path / name).write_text("old")
    done = publish(tmp_path, checkpoint(tmp_path, *FILES[:4]))
    assert done.removed == ["model-00001-of-00002.safetensors", "model.safetensors.index.json", "vocab.txt"]
    assert (tmp_path / "notes.txt").read_text() == "old"


def test_a_checkpoint_without_a_tokenizer_leaves_the_brains_alone(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("the brain's")
    publish(tmp_path, checkpoint(tmp_path, "config.json", "model.safetensors"))
    assert (tmp_path / "tokenizer.json").read_text() == "the brain's"


def test_sharded_weights_are_shown_with_their_index(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("old")
    names = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
    publish(tmp_path, checkpoint(tmp_path, *names))
    assert shown(tmp_path) == sorted([*names, BRAIN_FILE])


def test_links_in_the_brain_are_replaced_not_followed(tmp_path: Path) -> None:
    brain, outside = tmp_path / "brain", tmp_path / "outside"
    brain.mkdir()
    outside.write_text("mine")
    for name in ("config.json", ".config.json.new"):
        (brain / name).symlink_to(outside)
    publish(brain, checkpoint(brain, "config.json"))
    assert (outside.read_text(), (brain / "config.json").read_text()) == ("mine", "config.json 1")


CARD = BrainCard("b", "data", "bundled", {"hidden_size": 8}, 5, 123.0)
DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "no JSON": lambda path: path.write_text("{"),
    "a list": lambda path: path.write_text("[]"),
    "wrong types": lambda path: path.write_text('{"name": 1, "dataset": "", "tokenizer": "", "architecture": {}}'),
    "a surplus key": lambda path: path.write_text('{"nonsense": 1}'),
    "no UTF-8": lambda path: path.write_bytes(b'{"name": "\xff"}'),
    "deep JSON": lambda path: path.write_text("[" * 100_000),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_card_is_no_card(tmp_path: Path, damage: str) -> None:
    DAMAGES[damage](tmp_path / BRAIN_FILE)
    assert read_card(tmp_path) is None
    assert creation_time(tmp_path) is None
    publish(tmp_path, checkpoint(tmp_path))
    assert (tmp_path / BRAIN_FILE).read_text() == f"{BRAIN_FILE} 1"


def test_a_whole_card_comes_back_and_of_a_damaged_one_its_creation(tmp_path: Path) -> None:
    (tmp_path / BRAIN_FILE).write_bytes(card_bytes(CARD))
    assert read_card(tmp_path) == CARD
    (tmp_path / BRAIN_FILE).write_text('{"created": 123.0, "name": []}')
    assert (read_card(tmp_path), creation_time(tmp_path)) == (None, 123.0)
