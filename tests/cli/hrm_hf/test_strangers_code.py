"""Strangers' brains, checkpoints, tokenizers and adapters through the CLI: no code of theirs runs, no gap is filled."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aios.cli.hrm_hf.model_setup import saved_model
from aios.core.hrm_models import read_config
from aios.data.tokenizer import load_tokenizer
from aios.errors import UserError
from aios.settings.config import TrainingConfig
from strangers import AUTO_MAP, edit_json, edit_tensors, plant_code, refusal, terminal_that_says_yes, vouch_for
from training_process import train, train_args

STEPS = 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained brain, and in `adapted` one that was adapted from it."""
    folder = tmp_path_factory.mktemp("trained")
    train(folder, f"--steps={STEPS}", "--eval-every=0")
    student = f"--student-init={folder / 'brain'}"
    train(folder / "adapted", f"--steps={STEPS}", "--eval-every=0", "--use-peft", student)
    return folder


@pytest.fixture
def given(tmp_path: Path, trained: Path) -> Path:
    """A copy of all that, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "given"))


def lr_find(folder: Path, student: Path) -> list[str]:
    args = train_args(folder, f"--student-init={student}", f"--output={folder / 'curve.png'}")
    return ["hrm-hf", "lr-find", *args[2:]]


def as_student(given: Path) -> list[str]:
    return train_args(given.parent / "new", f"--student-init={given / 'brain'}")


def as_resumed(given: Path) -> list[str]:
    return train_args(given, "--resume", "--steps=9")


ASKING: dict[str, tuple[str, str, dict[str, object], Callable[[Path], list[str]]]] = {
    "student": ("brain", "config.json", {"auto_map": AUTO_MAP, "model_type": "stranger"}, as_student),
    "student as an HRM": ("brain", "config.json", {"auto_map": AUTO_MAP}, as_student),
    "student's tokenizer": ("brain", "tokenizer_config.json", {"auto_map": AUTO_MAP}, as_student),
    "student's generation": ("brain", "generation_config.json", {"custom_generate": "stranger"}, as_student),
    "student's adapter": ("brain", "adapter_config.json", {"auto_mapping": {"parent_library": "stranger"}}, as_student),
    "nested": ("brain", "config.json", {"parts": [{"custom_pipelines": {"x": {"impl": "stranger.X"}}}]}, as_student),
    "trusting": ("brain", "config.json", {"trust_remote_code": True}, as_student),
    "checkpoint": (
        f"brain/checkpoints/step-{STEPS}",
        "config.json",
        {"auto_map": AUTO_MAP, "model_type": "stranger"},
        as_resumed,
    ),
    "resumed tokenizer": (
        f"brain/checkpoints/step-{STEPS}",
        "tokenizer_config.json",
        {"auto_map": AUTO_MAP},
        as_resumed,
    ),
    "resumed adapter": (
        f"adapted/brain/checkpoints/step-{STEPS}",
        "adapter/adapter_config.json",
        {"auto_mapping": {"base_model_class": "X", "parent_library": "stranger"}},
        lambda given: as_resumed(given / "adapted"),
    ),
    "adapted student": (
        "brain",
        "config.json",
        {"auto_map": AUTO_MAP},
        lambda given: [*as_student(given), "--use-peft"],
    ),
    "lr-find": (
        "brain",
        "config.json",
        {"auto_map": AUTO_MAP, "model_type": "stranger"},
        lambda given: lr_find(given.parent / "new", given / "brain"),
    ),
    "tokenizer folder": (
        "brain",
        "tokenizer_config.json",
        {"auto_map": AUTO_MAP, "tokenizer_class": "StrangerTokenizer"},
        lambda given: train_args(given.parent / "new", f"--model={given / 'brain'}"),
    ),
}


@pytest.mark.parametrize("name", ASKING)
def test_whatever_asks_for_its_own_code_is_refused_by_name(tmp_path: Path, given: Path, name: str) -> None:
    place, file, changes, command = ASKING[name]
    folder, marker = given / place, tmp_path / "ran"
    plant_code(folder, marker)
    edit_json(folder / file, changes)
    if "checkpoints" in place:
        vouch_for(folder)
    sentence = refusal(command(given))
    assert str(folder / file) in sentence
    assert next(key for key in ("auto_map", "auto_mapping", "custom_", "trust_remote_code") if key in sentence)
    assert not marker.exists()
    assert not (tmp_path / "new").exists()


def test_a_terminal_is_not_asked_either(tmp_path: Path, given: Path) -> None:
    marker = tmp_path / "ran"
    plant_code(given / "brain", marker)
    edit_json(given / "brain" / "config.json", {"auto_map": AUTO_MAP, "model_type": "stranger"})
    with terminal_that_says_yes() as terminal:
        assert "auto_map" in refusal(as_student(given), terminal)
    assert not marker.exists()


def drop_one(path: Path) -> None:
    edit_tensors(path, lambda tensors: tensors.pop(sorted(tensors)[-1]))


def add_one(path: Path) -> None:
    edit_tensors(path, lambda tensors: tensors.update(extra=torch.zeros(3)))


def turn_one(path: Path) -> None:
    edit_tensors(
        path, lambda tensors: tensors.update({name: t.T.contiguous() for name, t in [sorted(tensors.items())[-1]]})
    )


WEIGHTS, BASE, ADAPTER = "model.safetensors", "base.safetensors", "adapter/adapter_model.safetensors"


@pytest.mark.parametrize(
    ("run", "file", "damage", "words"),
    [
        ("student", WEIGHTS, drop_one, "lacks q_head.weight"),
        ("student", WEIGHTS, add_one, "has besides extra"),
        ("lr-find", WEIGHTS, turn_one, "q_head.weight (32 x 2 instead of 2 x 32)"),
        ("resumed", WEIGHTS, drop_one, "lacks q_head.weight"),
        ("adapted", BASE, drop_one, "lacks q_head.weight"),
        ("adapted", BASE, add_one, "has besides extra"),
        ("adapted", ADAPTER, drop_one, "lacks base_model.model."),
        ("adapted", ADAPTER, add_one, "has besides extra"),
        ("adapted", ADAPTER, turn_one, "lora_B.weight (8 x 512 instead of 512 x 8)"),
    ],
)
def test_weights_that_are_not_the_models_are_refused(
    tmp_path: Path, given: Path, run: str, file: str, damage: Callable[[Path], None], words: str
) -> None:
    step = f"brain/checkpoints/step-{STEPS}"
    folder = given / {"resumed": step, "adapted": f"adapted/{step}"}.get(run, "brain")
    damage(folder / file)
    if "checkpoints" in str(folder):
        vouch_for(folder)
    commands = {"student": as_student(given), "resumed": as_resumed(given), "adapted": as_resumed(given / "adapted")}
    sentence = refusal(commands.get(run) or lr_find(tmp_path, given / "brain"))
    assert words in sentence
    assert str(folder / file) in sentence
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"base_model_name_or_path": "/elsewhere"}, "base_model_name_or_path '/elsewhere'"),
        ({"use_rslora": True}, "use_rslora True"),
        ({"peft_type": "IA3"}, "does not describe LoRA adapters"),
        ({"target_modules": "all-linear"}, "does not describe LoRA adapters"),
        ({"r": "8"}, "the r '8'"),
        ({"lora_alpha": None}, "the lora_alpha None"),
    ],
)
def test_adapters_of_another_kind_are_refused(
    trained: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    checkpoint = Path(shutil.copytree(trained / f"adapted/brain/checkpoints/step-{STEPS}", tmp_path / "checkpoint"))
    edit_json(checkpoint / "adapter" / "adapter_config.json", changes)
    config = TrainingConfig(use_peft=True, resume=True, max_seq_len=32)
    with pytest.raises(UserError) as refused:
        saved_model(checkpoint, read_config(checkpoint), config, load_tokenizer())
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("command", "changes", "words"),
    [
        (as_student, {"hidden_size": -32}, "hidden_size is -32"),
        (as_student, {"num_heads": "two"}, "num_heads is 'two'"),
        (as_student, {"hidden_size": None}, "hidden_size is null"),
        (as_student, {"rope_theta": float("nan")}, "rope_theta is nan"),
        (as_resumed, {"hidden_size": True}, "hidden_size is True"),
        (as_resumed, {"quantization_config": {"quant_method": "x"}}, "quantization_config {'quant_method': 'x'}"),
        (as_resumed, {"dtype": "float31"}, "dtype 'float31'"),
    ],
)
def test_a_damaged_config_is_refused_by_file(
    given: Path, command: Callable[[Path], list[str]], changes: dict[str, object], words: str
) -> None:
    folder = given / "brain" if command is as_student else given / f"brain/checkpoints/step-{STEPS}"
    edit_json(folder / "config.json", changes)
    if command is as_resumed:
        vouch_for(folder)
    sentence = refusal(command(given))
    assert words.replace("_", "-") in sentence or words in sentence
    assert str(folder / "config.json") in sentence


class Pickled:
    """Runs a command where it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {self.marker}",)


def test_pickled_weights_are_never_opened(tmp_path: Path, given: Path) -> None:
    marker = tmp_path / "ran"
    (given / "brain" / "model.safetensors").unlink()
    torch.save(Pickled(marker), given / "brain" / "pytorch_model.bin")
    sentence = refusal(as_student(given))
    assert "pytorch_model.bin" in sentence
    assert "model.safetensors" in sentence
    assert not marker.exists()
