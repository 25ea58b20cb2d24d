"""Whole trainings under DeepSpeed through the command line: two workers on the CPU, ZeRO 1 to 3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

import aios.core.hrm_models  # noqa: F401  registers the model with the Auto classes
from absent_packages import hide
from aios.engines.zero_shards import read_model_states, read_shards
from aios.runs.checkpoints import load_state, newest_valid
from training_process import read_log, run_aios, run_aios_anew, train, train_args, train_records

TWO = ("--world-size=2", "--eval-every=0", "--lr=2e-3")
STAGES = [pytest.param(s, marks=pytest.mark.slow) for s in (1, 2, 3)]
WARMUP_LR = {"type": "WarmupLR", "params": {"warmup_max_lr": 4e-3, "warmup_num_steps": 10, "warmup_type": "linear"}}


def shards_folder(brain: Path, step: int) -> Path:
    return brain / "checkpoints" / f"step-{step}" / "deepspeed" / "zero"


def rates_in_shards(brain: Path, step: int) -> list[float]:
    """The LR in the optimizer of each worker when it saved, by rank."""
    shards = read_shards(shards_folder(brain, step))
    moments = [shard.get("base_optimizer_state") or shard["optimizer_state_dict"] for shard in shards]
    return [moment["param_groups"][0]["lr"] for moment in moments]


def ds_file(folder: Path, **settings: Any) -> Path:
    path = folder / "ds.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    return path


def test_zero_trains_logs_and_leaves_a_brain_that_transformers_loads(tmp_path: Path) -> None:
    train(tmp_path, "--zero-stage=zero2", *TWO, "--steps=12", "--gradient-accumulation-steps=2")
    brain = tmp_path / "brain"
    records = train_records(brain)
    assert sorted(records) == list(range(1, 13))
    assert records[12]["ce"] < records[1]["ce"] - 0.2
    assert read_log(brain, "run_start")[0]["world_size"] == 2
    model = AutoModelForCausalLM.from_pretrained(brain)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert len(set(rates_in_shards(brain, 12))) == 1
    state = load_state(brain / "checkpoints" / "step-12")
    assert read_model_states(shards_folder(brain, 12))["adaptive_lr"] == state["adaptive_lr"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, stage: int) -> None:
    flags = (f"--zero-stage=zero{stage}", *TWO, "--save-every=10")
    train(tmp_path / "straight", *flags, "--steps=40")
    stop = tmp_path / "stop"
    stop.touch()
    train(tmp_path / "halves", *flags, "--steps=40", f"--stop-file={stop}")
    train(tmp_path / "halves", "--resume", "--world-size=2")
    straight, halves = (train_records(tmp_path / name / "brain") for name in ("straight", "halves"))
    assert len(straight) == 40
    for step, record in straight.items():
        assert (record["ce"], record["lr"], record["grad_norm"]) == (
            halves[step]["ce"], halves[step]["lr"], halves[step]["grad_norm"],
        )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("stage", [2, 3])
def test_every_worker_holds_the_logged_rate_and_another_number_of_them_keeps_it(tmp_path: Path, stage: int) -> None:
    train(tmp_path, f"--zero-stage=zero{stage}", *TWO, "--steps=60", "--save-every=5", "--keep-checkpoints=20")
    brain = tmp_path / "brain"
    records = train_records(brain)
    assert len(read_log(brain, "adaptive_lr_adjustment")) >= 1
    for step in range(5, 61, 5):
        assert rates_in_shards(brain, step) == [records[step]["lr"]] * 2
    before = load_state(brain / "checkpoints" / "step-60")["adaptive_lr"]["control"]["scheduler"]["current_lr"]
    train(tmp_path, "--resume", "--steps=64", "--world-size=1")
    records = train_records(brain)
    assert records[61]["lr"] == before
    assert read_log(brain, "adaptive_lr_restored")[-1]["current_lr"] == before
    assert abs(records[64]["ce"] - records[60]["ce"]) < 0.3
    assert rates_in_shards(brain, 64) == [records[64]["lr"]]


@pytest.mark.slow
def test_a_scheduler_of_deepspeeds_wins(tmp_path: Path) -> None:
    file = ds_file(tmp_path, zero_optimization={"stage": 1}, scheduler=WARMUP_LR)
    flags = (f"--deepspeed-config={file}", "--world-size=2", "--eval-every=0", "--adaptive-lr-profile=auto")
    train(tmp_path / "straight", *flags, "--steps=16")
    brain = tmp_path / "straight" / "brain"
    assert [r["reason"] for r in read_log(brain, "adaptive_lr_disabled")] == ["deepspeed_scheduler_present"]
    assert not [
        r for r in read_log(brain) if r["event"] in ("adaptive_lr_init", "adaptive_lr_climb", "adaptive_lr_race")
    ]
    rates = [record["lr"] for _, record in sorted(train_records(brain).items())]
    # DeepSpeed's own schedule, which begins with two steps at 0.
    assert rates == pytest.approx([min(max(step - 1, 0), 10) / 10 * 4e-3 for step in range(16)], abs=1e-9)

    train(tmp_path / "halves", *flags, "--steps=8")
    train(tmp_path / "halves", "--resume", "--steps=16", "--world-size=1")
    again = train_records(tmp_path / "halves" / "brain")
    assert [again[step]["lr"] for step in range(9, 17)] == pytest.approx(rates[8:], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_profile_auto_climbs_and_goes_back_from_the_edge_under_zero(tmp_path: Path, stage: int) -> None:
    flags = (f"--zero-stage=zero{stage}", "--world-size=2", "--eval-every=0", "--adaptive-lr-profile=auto")
    train(tmp_path, *flags, "--steps=300", "--lr=1e-5", "--batch-size=2", "--max-seq-len=16")
    brain = tmp_path / "brain"
    [found] = read_log(brain, "adaptive_lr_climb")
    assert found["lr"] > 1e-4
    assert found["search_steps"] > 0
    [disabled] = read_log(brain, "adaptive_lr_disabled")
    assert (disabled["part"], "does not hold the weights" in disabled["reason"]) == ("rate for each role", True)
    assert "a whole run wants 1/3.33 of that" in found["reason"]
    records = train_records(brain)
    assert records[300]["ce"] < records[min(records)]["ce"] - 0.5
    assert len(set(rates_in_shards(brain, 300))) == 1


@pytest.mark.slow
def test_parts_that_need_a_snapshot_are_named_where_there_is_none_and_the_rest_goes_on(tmp_path: Path) -> None:
    offloaded = {"stage": 3, "offload_optimizer": {"device": "cpu"}}
    file = ds_file(tmp_path, zero_optimization=offloaded)
    train(tmp_path, f"--deepspeed-config={file}", *TWO, "--steps=40", "--adaptive-lr-profile=auto")
    brain = tmp_path / "brain"
    disabled = read_log(brain, "adaptive_lr_disabled")
    assert [record["part"] for record in disabled] == ["search", "rewind"]
    assert all("offload_optimizer" in record["reason"] for record in disabled)
    assert not read_log(brain, "adaptive_lr_climb")
    assert not read_log(brain, "adaptive_lr_race")
    assert read_log(brain, "adaptive_lr_anneal")
    records = train_records(brain)
    assert records[40]["ce"] < records[1]["ce"] - 0.2
    assert records[40]["lr"] < records[20]["lr"]


@pytest.mark.slow
def test_a_zero3_checkpoint_is_not_resumed_without_zero(tmp_path: Path) -> None:
    train(tmp_path, "--zero-stage=zero3", *TWO, "--steps=2")
    done = run_aios(*train_args(tmp_path, "--resume", "--steps=4", "--zero-stage=none", "--world-size=1"))
    assert done.returncode == 2
    assert "--zero-stage zero3" in done.stderr
    assert newest_valid(tmp_path / "brain")[0] == tmp_path / "brain" / "checkpoints" / "step-2"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"zero_optimization": {"stage": 2}, "train_batch_size": 12}, "train_batch_size to 12"), ({}, "no ZeRO stage")],
)
def test_settings_that_contradict_the_flags_are_refused(tmp_path: Path, settings: Any, sentence: str) -> None:
    done = run_aios(*train_args(tmp_path, f"--deepspeed-config={ds_file(tmp_path, **settings)}", "--world-size=2"))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "brain").exists()


@pytest.mark.slow
def test_settings_that_only_deepspeed_knows_to_be_wrong_are_refused(tmp_path: Path) -> None:
    scheduler = {"type": "WarmupLR", "params": {"warmup_maximum": 1}}
    file = ds_file(tmp_path, zero_optimization={"stage": 2}, scheduler=scheduler)
    done = run_aios(*train_args(tmp_path, f"--deepspeed-config={file}", "--world-size=1", "--max-restarts=0"))
    assert done.returncode == 2
    assert "warmup_maximum" in done.stderr
    assert "ds.json" in done.stderr


def test_zero_without_deepspeed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", hide(tmp_path / "hidden", "deepspeed"))
    done = run_aios_anew(*train_args(tmp_path, "--zero-stage=zero1", "--world-size=2"))
    assert done.returncode == 2
    assert "pip install 'aios-autolr[deepspeed]'" in " ".join(done.stderr.split())
