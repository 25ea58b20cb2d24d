"""DeepSpeed's settings from flags and file: what is decided, what contradicts, what the user reads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from aios.errors import UserError
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import (
    check_deepspeed,
    check_same_engine,
    deepspeed_settings,
    optimizer_settings,
    snapshot_obstacle,
    with_file_lr,
    zero_stage,
)

EXAMPLES = Path(__file__).parents[2] / "config"


def config_with(folder: Path, settings: Any, **flags: Any) -> TrainingConfig:
    """A config whose --deepspeed-config holds `settings`."""
    path = folder / "ds.json"
    path.write_text(settings if isinstance(settings, str) else json.dumps(settings), encoding="utf-8")
    return TrainingConfig(deepspeed_config=str(path), **flags)


def zero(stage: int, **rest: Any) -> dict[str, Any]:
    return {"zero_optimization": {"stage": stage}, **rest}


def test_the_flags_alone_make_complete_settings() -> None:
    config = TrainingConfig(zero_stage="zero2", batch_size=4, gradient_accumulation_steps=3, max_grad_norm=0.5)
    settings = deepspeed_settings(config, 2)
    assert settings["train_batch_size"] == 24
    assert settings["train_micro_batch_size_per_gpu"] == 4
    assert settings["gradient_accumulation_steps"] == 3
    assert settings["gradient_clipping"] == 0.5
    assert settings["zero_optimization"] == {"stage": 2}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_example_files_agree_with_their_stage(stage: int) -> None:
    path = str(EXAMPLES / f"deepspeed_zero{stage}.json")
    with_flag = TrainingConfig(deepspeed_config=path, zero_stage=f"zero{stage}")  # type: ignore[arg-type]
    assert deepspeed_settings(with_flag, 2)["zero_optimization"]["stage"] == stage
    assert zero_stage(TrainingConfig(deepspeed_config=path)) == stage


def test_what_the_file_says_besides_is_kept_and_auto_means_the_flags(tmp_path: Path) -> None:
    asked = zero(2, train_batch_size="auto", gradient_clipping="auto", wall_clock_breakdown=True)
    asked["optimizer"] = {"type": "AdamW", "params": {"lr": "auto", "betas": "auto"}}
    settings = deepspeed_settings(config_with(tmp_path, asked, batch_size=4), 2)
    assert settings["train_batch_size"] == 8
    assert settings["gradient_clipping"] == 1.0
    assert settings["wall_clock_breakdown"] is True
    assert "optimizer" not in settings  # the trainer's own


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        *(({name: {"enabled": True, "output_path": "/"}}, name) for name in ("tensorboard", "csv_monitor", "wandb")),
        *(({name: {"enabled": "yes"}}, name) for name in ("comet", "nebula", "autotuning")),
        ({"flops_profiler": {"enabled": True, "output_file": "/etc/profile"}}, "flops_profiler's output_file"),
    ],
)
def test_logs_of_deepspeeds_own_are_refused_by_name(tmp_path: Path, asked: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"asks for {named}, which writes beside the training log"):
        deepspeed_settings(config_with(tmp_path, zero(2, **asked)), 2)
    deepspeed_settings(config_with(tmp_path, zero(2, tensorboard={"enabled": False}, flops_profiler={})), 2)


CONTRADICTIONS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"train_batch_size": 10}, {}, "train_batch_size to 10"),
    ({"train_micro_batch_size_per_gpu": 16}, {}, "--batch-size is 8"),
    ({"gradient_accumulation_steps": 4}, {}, "--gradient-accumulation-steps is 1"),
    ({"gradient_clipping": 0.1}, {}, "--max-grad-norm is 1.0"),
    ({}, {"zero_stage": "zero3"}, "--zero-stage zero2"),
    ({"bf16": {"enabled": True}}, {}, "--model-dtype bf16"),
    ({"fp16": {"enabled": True}}, {"model_dtype": "bf16"}, "--model-dtype fp16"),
    ({"optimizer": {"type": "Lamb"}}, {}, "optimizer 'Lamb'"),
    ({"optimizer": {"type": "AdamW", "params": {"momentum": 0.9}}}, {}, "momentum"),
    ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-3}}}, {"lr": 1e-4}, "--lr is 0.0001"),
    ({"bf16": 1}, {}, "JSON object"),
    ({"scheduler": {"type": "CosineAnnealingLR"}}, {}, "WarmupCosineLR"),
]


@pytest.mark.parametrize(("asked", "flags", "sentence"), CONTRADICTIONS)
def test_a_file_that_contradicts_a_flag_is_refused(
    tmp_path: Path, asked: dict[str, Any], flags: dict[str, Any], sentence: str
) -> None:
    config = config_with(tmp_path, zero(2, **asked), **flags)
    with pytest.raises(UserError) as caught:
        deepspeed_settings(config, 2)
    assert sentence in str(caught.value)
    assert "ds.json" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [("{", "no valid JSON"), ("[1]", "must hold a JSON object"), ('{"zero_optimization": {"stage": 7}}', "stage 7"),
     ("{}", "no ZeRO stage"), ('{"zero_optimization": {"stage": 0}}', "stage 0")],
)  # fmt: skip
def test_an_unusable_file_is_refused_before_any_worker_starts(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        check_deepspeed(config_with(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.json: cannot be read"):
        check_deepspeed(TrainingConfig(deepspeed_config=str(tmp_path / "nowhere.json")))


def test_a_scheduler_of_deepspeeds_is_handed_on(tmp_path: Path) -> None:
    asked = {"type": "WarmupLR"}
    assert deepspeed_settings(config_with(tmp_path, zero(1, scheduler=asked)), 1)["scheduler"] == asked
    deepspeed_settings(config_with(tmp_path, zero(1, scheduler={})), 1)


def test_what_is_decided_of_a_file_is_decided_of_one_version_of_it(tmp_path: Path) -> None:
    asked = zero(1, scheduler={"type": "WarmupLR"}, optimizer={"type": "Adam", "params": {"adam_w_mode": True}})
    path = config_with(tmp_path, asked).deepspeed_config
    counted = f"""
import sys
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import deepspeed_settings
read = []
sys.addaudithook(lambda event, args: read.append(args[0]) if event == "open" and str(args[0]) == {path!r} else None)
deepspeed_settings(TrainingConfig(deepspeed_config={path!r}), 1)
print(len(read))
"""
    done = subprocess.run([sys.executable, "-c", counted], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "1\n"


def test_an_adamw_section_sets_what_no_flag_does(tmp_path: Path) -> None:
    section = {"type": "Adam", "params": {"lr": 3e-4, "betas": [0.8, 0.99], "weight_decay": 0.02, "torch_adam": True}}
    config = config_with(tmp_path, zero(1, optimizer=section))
    assert optimizer_settings(config) == {"lr": 3e-4, "betas": [0.8, 0.99], "weight_decay": 0.02}
    settled = with_file_lr(config)
    assert settled.lr == 3e-4
    assert with_file_lr(settled) == settled


def test_what_cannot_be_copied_in_memory_is_named(tmp_path: Path) -> None:
    offloaded = {"stage": 3, "offload_param": {"device": "nvme", "nvme_path": "/x"}}
    asked = config_with(tmp_path, {"zero_optimization": offloaded})
    assert snapshot_obstacle(deepspeed_settings(asked, None)) == "deepspeed_offload_param_nvme"
    assert snapshot_obstacle(deepspeed_settings(TrainingConfig(zero_stage="zero3"), None)) is None


def test_a_checkpoint_goes_on_under_the_stage_it_was_saved_under() -> None:
    folder = Path("brain/checkpoints/step-5")
    check_same_engine(TrainingConfig(zero_stage="zero3"), 3, folder)
    check_same_engine(TrainingConfig(), 0, folder)
    for config, saved, remedy in (
        (TrainingConfig(), 3, "--zero-stage zero3"),
        (TrainingConfig(zero_stage="zero1"), 2, "--zero-stage zero2"),
        (TrainingConfig(zero_stage="zero1"), 0, "--zero-stage none"),
    ):
        with pytest.raises(UserError) as caught:
            check_same_engine(config, saved, folder)
        assert remedy in str(caught.value)
        assert "--student-init" in str(caught.value)


def test_universal_checkpoint_is_refused_because_deepspeed_unpickles_it(tmp_path: Path) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps({"checkpoint": {"load_universal": True}, "zero_optimization": {"stage": 1}}))
    with pytest.raises(UserError, match="can run code"):
        deepspeed_settings(TrainingConfig(deepspeed_config=str(path)), 1)
