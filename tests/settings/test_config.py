"""`TrainingConfig` is the only source of defaults, checks itself, and survives the command line."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import typer

from aios.cli.app import app
from aios.errors import UserError
from aios.run_view.logged_settings import ALWAYS_SAID, IN_EVAL_ID, OUTPUTS, SAID_LATER
from aios.settings.config import UNSEARCHED_LR, TrainingConfig, field_types, path_fields
from parsed_flags import parse_config

COMMAND = typer.main.get_command(app).commands["hrm-hf"].commands["train"]

OTHER_VALUES: dict[str, Any] = {
    "lr": 3e-4, "auto_adjust_lr": False, "adaptive_lr_profile": "rules", "anneal_fraction": 0.25,
    "warmup_steps": 7, "adaptive_lr_config": "a b.toml",
    "role_lr": False,
    "on_overfit": "keep-best",
    "adaptive_lr_reset_state": True, "dataset_file": "-data.txt", "encoding": "latin-1", "model": "tok",
    "max_seq_len": 64, "eval_file": "e.txt", "eval_every": 0, "eval_batches": 3, "sample_every": 9,
    "steps": 1000, "batch_size": 2,
    "gradient_accumulation_steps": 4, "seed": 5, "weight_decay": 1 / 3, "max_grad_norm": 0.5, "preset": "small",
    "hidden_size": 64, "h_layers": 3, "l_layers": 3, "h_cycles": 3, "l_cycles": 1, "num_heads": 2, "expansion": 2.5,
    "halt_max_steps": 3, "use_moe": True, "num_experts": 8, "num_experts_per_tok": 1, "student_init": "x",
    "use_peft": True, "lora_rank": 4, "lora_alpha": 8,
    "amp": False, "model_dtype": "bf16", "gradient_checkpointing": True, "device": "cpu", "cuda_ids": "1",
    "bundle_dir": "out", "brain_name": "b", "log_file": "l.jsonl", "save_every": 11, "keep_checkpoints": 1,
    "resume": True, "stop_file": "halt", "tensorboard": "tb", "backward_per_segment": True, "eval_segments": 3,
    "halting": False, "last_cycle_gradient": True, "shared_stack": True, "corrected_init": True, "ema": 0.99,
}  # fmt: skip
TOGETHER: dict[str, dict[str, Any]] = {
    "optimizer": {"optimizer": "muon"},
    "compile": {"compile": True},
    "update_per_segment": {"update_per_segment": True},
    "ddp": {"ddp": True},
    "world_size": {"ddp": True, "world_size": 2},
    "max_restarts": {"max_restarts": 0},
    "parallel_independent": {"parallel_independent": True},
    "merge_every": {"merge_every": 7},
    "merge_timeout": {"merge_timeout": 9},
    "zero_stage": {"zero_stage": "zero2"},
    "deepspeed_config": {"deepspeed_config": "d.json"},
}
"""Fields that do not go with all others, with what they need beside them."""


@pytest.mark.parametrize(
    ("given", "lr"),
    [
        ({}, UNSEARCHED_LR),
        ({"steps": 20}, UNSEARCHED_LR),
        ({"lr": 2e-4}, 2e-4),
        ({"adaptive_lr_profile": "rules"}, 5e-5),
        ({"auto_adjust_lr": False}, 5e-5),
        ({"student_init": "brain"}, 5e-5),  # what was learned is not to be lost
    ],
)
def test_where_a_run_begins_that_no_search_tells(given: dict[str, Any], lr: float) -> None:
    assert TrainingConfig(**given).start_lr == lr


def test_every_field_has_an_example() -> None:
    names = {f.name for f in dataclasses.fields(TrainingConfig)}
    assert names == OTHER_VALUES.keys() | TOGETHER.keys()
    assert all(TrainingConfig().to_dict()[name] != value for name, value in OTHER_VALUES.items())


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_cli_round_trip_of_each_field(name: str) -> None:
    config = TrainingConfig(**{name: OTHER_VALUES[name]})
    args = config.to_cli_args()
    assert len(args) == 1
    assert parse_config(COMMAND, args) == config


def test_cli_round_trip_of_all_fields() -> None:
    config = TrainingConfig(**OTHER_VALUES)
    assert parse_config(COMMAND, config.to_cli_args()) == config
    assert TrainingConfig(**config.to_dict()) == config


def test_defaults_are_the_dataclass_ones() -> None:
    assert parse_config(COMMAND, []) == TrainingConfig()
    assert TrainingConfig().to_cli_args() == []


def test_what_older_runs_do_not_name_is_at_its_default_there() -> None:
    defaults = TrainingConfig().to_dict()
    assert {name: defaults[name] for name in SAID_LATER} == SAID_LATER
    assert set(ALWAYS_SAID) <= set(defaults)
    assert set(IN_EVAL_ID) <= {*ALWAYS_SAID, *SAID_LATER}


def test_places_to_write_to_are_paths() -> None:
    assert set(OUTPUTS) <= set(path_fields())
    assert path_fields()["student_init"] == "FOLDER"
    assert "model" not in path_fields()


@pytest.mark.parametrize("name", TOGETHER)
def test_cli_round_trip_of_the_fields_of_several_workers(name: str) -> None:
    config = TrainingConfig(**TOGETHER[name])
    assert getattr(config, name) != getattr(TrainingConfig(), name)
    assert parse_config(COMMAND, config.to_cli_args()) == config


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"world_size": 2}, "add --ddp"),
        ({"cuda_ids": "0,1"}, "add --ddp"),
        ({"ddp": True, "parallel_independent": True}, "exclude each other"),
        ({"zero_stage": "zero1", "parallel_independent": True}, "exclude each other"),
        ({"world_size": 0}, "at least 1"),
        ({"merge_every": 0}, "at least 1"),
        ({"merge_timeout": 0}, "between 1 and 86400 seconds"),
        ({"max_restarts": -1}, "0 or more"),
    ],
)
def test_workers_without_a_way_or_with_two_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        TrainingConfig(**settings)


def test_help_documents_every_flag() -> None:
    assert set(field_types()) == {f.name for f in dataclasses.fields(TrainingConfig)}
    assert all(f.metadata["help"].strip().endswith((".", "]", ")")) for f in dataclasses.fields(TrainingConfig))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"lr": 0.0}, "--lr is 0.0"),
        ({"lr": -1e-3}, "--lr is -0.001"),
        ({"lr": math.nan}, "--lr is nan"),
        ({"lr": math.inf}, "--lr is inf"),
        ({"steps": 0}, "--steps is 0"),
        ({"batch_size": 0}, "--batch-size is 0"),
        ({"gradient_accumulation_steps": -1}, "--gradient-accumulation-steps is -1"),
        ({"max_seq_len": 1}, "--max-seq-len is 1"),
        ({"warmup_steps": 700}, "--warmup-steps is 700, longer than the run of 600 steps"),
        ({"num_heads": 3}, "--hidden-size 128 does not split into 3 attention heads"),
        ({"hidden_size": 0}, "--hidden-size is 0"),
        ({"num_experts_per_tok": 5}, "--num-experts-per-tok is 5, more than the 4 experts"),
        ({"preset": "huge"}, "--preset is 'huge'; choose one of tiny, small, base"),
        ({"steps": 1.5}, "--steps is 1.5"),
        ({"auto_adjust_lr": 1}, "--auto-adjust-lr is 1"),
        ({"brain_name": "../x"}, "--brain-name is '../x'"),
        ({"cuda_ids": "a"}, "--cuda-ids is 'a'"),
        ({"encoding": "latin-9000"}, "--encoding is 'latin-9000', but it must be an encoding of text"),
        ({"encoding": "hex"}, "--encoding is 'hex'"),
        ({"max_grad_norm": 0.0}, "--max-grad-norm is 0.0"),
    ],
)
def test_bad_values_name_flag_and_value(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        TrainingConfig(**given)
    assert sentence in str(caught.value)
