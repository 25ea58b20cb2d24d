"""A write that fails is one sentence, whichever library wrote; anything else stays what it was."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from aios.data.tokenizer import bundled_tokenizer_dir
from aios.errors import UserError
from aios.runs.storage import StorageError, writing
from small_checkpoints import save_small
from small_disk import SmallDisk

LARGE = 1 << 60


def _tokenizer(path: Path) -> None:
    AutoTokenizer.from_pretrained(bundled_tokenizer_dir()).backend_tokenizer.save(str(path))


WRITERS: dict[str, Callable[[Path], object]] = {
    "python": lambda path: path.write_bytes(bytes(300_000)),
    "torch (C++)": lambda path: torch.save({"state": torch.zeros(300_000)}, path),
    "safetensors (Rust)": lambda path: save_file({"weight": torch.zeros(300_000)}, path),
    "tokenizers (Rust)": _tokenizer,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_full_disk_is_one_sentence_whoever_writes(small_disk: SmallDisk, writer: str) -> None:
    disk = small_disk("64k")
    with pytest.raises(StorageError) as caught, writing(disk, disk, LARGE):
        WRITERS[writer](disk / "file")
    said = str(caught.value)
    assert said.startswith(f"The disk {disk} is full (No space left on device): about 1,152,922 TB are needed in ")
    assert said.endswith("are free; nothing is saved yet: start again once there is room.")


def test_what_is_kept_is_the_newest_valid_checkpoint(tmp_path: Path) -> None:
    for step in (3, 4):
        path = save_small(tmp_path, step)
    (path / "state.pt").write_bytes(b"damaged")
    with pytest.raises(StorageError, match=r"everything up to step 3 is saved: continue with --resume once it can"):  # noqa: SIM117
        with writing(tmp_path, tmp_path):
            raise OSError(errno.EROFS, "read-only")


def test_a_checkpoint_set_aside_is_told_by_its_step(tmp_path: Path) -> None:
    """As a crash leaves it that comes between the two renames of a step saved again."""
    path = save_small(tmp_path, 120)
    path.rename(path.with_name(f".partial-replaced-{path.name}"))
    with pytest.raises(StorageError, match=r"; everything up to step 120 is saved: "), writing(tmp_path, tmp_path):
        raise OSError(errno.EROFS, "read-only")


@pytest.mark.parametrize("error", [RuntimeError("CUDA"), UserError("full (os error 28)"), KeyError("x")])
def test_other_errors_pass_through(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, writing(tmp_path, tmp_path):
        raise error
    assert caught.value is error
