"""A model out of somebody else's folder: damaged configs and weights are refused with a sentence, whole ones load."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from aios.core.hrm_models import HRMConfig, HRMForCausalLM, load_model, read_config
from aios.errors import UserError
from strangers import edit_json, edit_tensors

SHAPE = {"vocab_size": 50, "hidden_size": 16, "num_heads": 2, "h_layers": 1, "l_layers": 2}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny model, saved."""
    torch.manual_seed(0)
    HRMForCausalLM(HRMConfig(**SHAPE, use_moe=True)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def open_folder(folder: Path) -> HRMForCausalLM:
    return load_model(folder, read_config(folder))


def refusal(folder: Path) -> str:
    """The sentence with which the folder is refused."""
    with pytest.raises(UserError) as refused:
        open_folder(folder)
    sentence = str(refused.value)
    assert "\n" not in sentence
    assert len(sentence) < 1000
    return sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_model_loads_as_transformers_loads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    made = HRMForCausalLM(HRMConfig(**SHAPE)).to(dtype)
    made.save_pretrained(tmp_path)
    drawn = torch.get_rng_state()
    ours, theirs = open_folder(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert not ours.training
    assert ours.dtype == dtype
    assert ours.config.to_diff_dict().keys() <= theirs.config.to_diff_dict().keys()
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine, other)
        assert mine.requires_grad
    assert torch.equal(ours.h_init, made.h_init)


def test_weights_in_several_files_load(folder: Path) -> None:
    whole = load_file(folder / "model.safetensors")
    HRMForCausalLM.from_pretrained(folder).save_pretrained(folder.parent / "shards", max_shard_size="20KB")
    assert not (folder.parent / "shards" / "model.safetensors").exists()
    loaded = open_folder(folder.parent / "shards").state_dict()
    assert loaded.keys() == whole.keys()
    assert all(torch.equal(loaded[name], whole[name]) for name in whole)
    shard = sorted((folder.parent / "shards").glob("model-*.safetensors"))[0]
    edit_tensors(shard, lambda tensors: tensors.pop(next(iter(tensors))))
    assert "lacks" in refusal(folder.parent / "shards")


@pytest.mark.parametrize("place", ["../model.safetensors", "/etc/passwd", 5, "", ".."])
def test_an_index_cannot_name_files_elsewhere(folder: Path, place: object) -> None:
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    edit_json(folder / "model.safetensors.index.json", {"weight_map": {"h_init": place}})
    assert str(folder) in refusal(folder)


CONFIGS: list[tuple[dict[str, Any], str]] = [
    ({"hidden_size": -16}, "hidden_size is -16"),
    ({"hidden_size": "wide"}, "hidden_size is 'wide'"),
    ({"hidden_size": True}, "hidden_size is True"),
    ({"hidden_size": float("nan")}, "hidden_size is nan"),
    ({"hidden_size": None}, "hidden_size is None"),
    ({"h_layers": [[["many"]]]}, "h_layers is"),
    ({"expansion": "x"}, "expansion is 'x'"),
    ({"expansion": True}, "expansion is True"),
    ({"expansion": 10**400}, "expansion is a whole number of 1329 bits"),
    ({"rope_theta": float("inf")}, "rope_theta is inf"),
    ({"q_loss_coef": {}}, "q_loss_coef is {}"),
    ({"use_moe": "yes"}, "use_moe is 'yes'"),
    ({"tie_word_embeddings": True}, "tie_word_embeddings True"),
    ({"eos_token_id": [0, "end"]}, "eos_token_id is [0, 'end']"),
    ({"pad_token_id": 1.5}, "pad_token_id is 1.5"),
    ({"quantization_config": {"quant_method": "unheard of"}}, "quantization_config"),
    ({"quantization_config": 7}, "quantization_config"),
    ({"dtype": "float31"}, "dtype 'float31'"),
    ({"dtype": "load"}, "dtype 'load'"),
    ({"torch_dtype": ["float32"]}, "torch_dtype ['float32']"),
    ({"model_type": "llama"}, "'llama', not an HRM"),
    ({"model_type": "x" * 10**6}, "not an HRM"),
    ({"model_type": None}, "None, not an HRM"),
    ({"architectures": ["LlamaForCausalLM"]}, "LlamaForCausalLM"),
    ({"architectures": 3}, "architectures 3"),
]


@pytest.mark.parametrize(("changes", "words"), CONFIGS, ids=[words for _, words in CONFIGS])
def test_a_damaged_config_is_refused_by_field(folder: Path, changes: dict[str, Any], words: str) -> None:
    edit_json(folder / "config.json", changes)
    sentence = refusal(folder)
    assert words in sentence
    assert str(folder / "config.json") in sentence


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "holds [1, 2]"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", "nested too deeply"),
        (b'{"vocab_size": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b" " * ((1 << 24) + 1), "larger than 16 MiB"),
        (json.dumps({"model_type": "\ud800"}).encode(), "not an HRM"),
    ],
    ids=["empty", "list", "bytes", "twice", "deep objects", "deep lists", "digits", "large", "surrogate"],
)
def test_a_file_that_is_no_config_is_refused(folder: Path, content: bytes, words: str) -> None:
    (folder / "config.json").write_bytes(content)
    assert words in refusal(folder)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "generation_config.json"])
@pytest.mark.parametrize(
    "make",
    [Path.mkdir, link_to_itself, os.mkfifo, lambda path: path.symlink_to("/dev/zero"), lambda path: None],
    ids=["folder", "loop", "pipe", "device", "nothing"],
)
def test_what_is_no_file_is_refused_without_waiting(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink()
    make(folder / name)
    if not os.path.lexists(folder / name) and name == "generation_config.json":
        open_folder(folder)  # nobody needs it
    else:
        assert name in refusal(folder)


def to_integers(tensors: dict[str, Tensor]) -> None:
    tensors["h_init"] = tensors["h_init"].to(torch.int64)


def to_doubles(tensors: dict[str, Tensor]) -> None:
    tensors["h_init"] = tensors["h_init"].double()


def without_all(tensors: dict[str, Tensor]) -> None:
    tensors.clear()
    tensors["stranger"] = torch.zeros(2)


WEIGHTS: list[tuple[Callable[[dict[str, Tensor]], object], str]] = [
    (lambda tensors: tensors.pop("h_init"), "lacks h_init;"),
    (lambda tensors: tensors.update(extra=torch.zeros(3)), "has besides extra;"),
    (lambda tensors: tensors.update(h_init=torch.zeros(17)), "h_init (17 instead of 16)"),
    (lambda tensors: tensors.update({"q_head.weight": torch.zeros(16, 2)}), "q_head.weight (16 x 2 instead of 2 x 16)"),
    (to_integers, "h_init (int64 instead of float32)"),
    (to_doubles, "h_init (float64 instead of float32)"),
    (without_all, "more, has besides stranger;"),
]


@pytest.mark.parametrize(("change", "words"), WEIGHTS, ids=[words for _, words in WEIGHTS])
def test_weights_that_are_not_the_models_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    edit_tensors(folder / "model.safetensors", change)
    sentence = refusal(folder)
    assert words in sentence
    assert str(folder / "model.safetensors") in sentence


@pytest.mark.parametrize("content", [b"", b"half", b"\xff" * 64, b"\x10\0\0\0\0\0\0\0{nonsense       "])
def test_a_file_that_is_no_safetensors_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "cannot be read" in refusal(folder)


def test_adapters_beside_the_weights_are_left_alone(folder: Path) -> None:
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/nowhere", "peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    assert open_folder(folder).config.vocab_size == 50
