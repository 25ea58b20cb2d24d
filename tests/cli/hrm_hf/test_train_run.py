"""A whole training through the command line: what it prints, logs and leaves on disk."""

from __future__ import annotations

import errno
import json
import math
import os
import pty
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import aios.core.hrm_models  # noqa: F401  registers the model with the Auto classes
from aios.run_view.sentences import sentence
from aios.runs.brain import list_checkpoints
from aios.settings.config import TrainingConfig
from forked_aios import ForkedAios
from training_process import THINKING, read_log, run_aios, train, train_args, train_records

STEPS, WARMUP, LR = 80, 8, 2e-3


class FinishedRun:
    """One training shared by the tests that only look at what it left."""

    def __init__(self, folder: Path) -> None:
        self.brain = folder / "brain"
        flags = (*THINKING, "--eval-every=40", "--save-every=30", "--keep-checkpoints=2")
        self.done: subprocess.CompletedProcess[str] = train(folder, f"--steps={STEPS}", f"--lr={LR}", *flags)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return FinishedRun(tmp_path_factory.mktemp("run"))


TRAIN_KEYS = {"loss", "ce", "lr", "grad_norm", "tokens_per_sec", "step_time_s", "used_segments"}
CONTRACT_KEYS = {
    "run_start": {"run_id", "config", "versions", "device", "world_size", "params", "resumed_from"},
    "train": TRAIN_KEYS,
    "eval": {"loss", "ppl", "tokens"},
    "warmup_complete": {"lr"},
    "checkpoint": {"path", "bytes", "seconds"},
    "final": {"steps", "loss", "eval_loss", "checkpoint", "wall_s"},
    "adaptive_lr_init": {"initial_lr", "lr_min", "lr_max", "use_moe", "window_size", "warmup_steps"},
    "adaptive_lr_adjustment": {"decision", "old_lr", "new_lr", "change_pct", "reason", "metrics"},
    "adaptive_lr_summary": {"total_steps", "adjustments_made", "final_lr", "lr_history_length"},
}


@pytest.mark.parametrize("event", CONTRACT_KEYS)
def test_log_events_have_the_keys_of_the_contract(finished: FinishedRun, event: str) -> None:
    records = read_log(finished.brain, event)
    assert records
    for record in records:
        assert record.keys() >= CONTRACT_KEYS[event] | {"event", "ts", "step"}


def test_one_train_record_per_step_and_the_loss_falls(finished: FinishedRun) -> None:
    records = read_log(finished.brain, "train")
    assert [r["step"] for r in records] == list(range(1, STEPS + 1))
    assert abs(records[0]["ce"] - math.log(2048)) < 0.3
    assert records[-1]["ce"] < records[0]["ce"] - 1
    assert all(1 <= r["used_segments"] <= 2 and r["grad_norm"] > 0 for r in records)


def test_warmup_to_adaptive_transition(finished: FinishedRun) -> None:
    lrs = {step: r["lr"] for step, r in train_records(finished.brain).items()}
    assert [lrs[s] for s in range(1, WARMUP + 1)] == pytest.approx([LR * s / WARMUP for s in range(1, WARMUP + 1)])
    assert lrs[WARMUP] == lrs[WARMUP + 1] == LR
    (complete,) = read_log(finished.brain, "warmup_complete")
    (init,) = read_log(finished.brain, "adaptive_lr_init")
    assert (complete["step"], complete["lr"], init["step"], init["warmup_steps"]) == (WARMUP, LR, 0, WARMUP)
    adjustments = read_log(finished.brain, "adaptive_lr_adjustment")
    # The first window starts with the first loss after the warm-up and is compared with nothing; the second may act.
    assert adjustments[0]["step"] == WARMUP + 2 * init["window_size"]
    (summary,) = read_log(finished.brain, "adaptive_lr_summary")
    assert summary["total_steps"] == STEPS - WARMUP


def test_lr_of_each_step_follows_from_the_logged_adjustments(finished: FinishedRun) -> None:
    lr = LR
    changes = {r["step"]: r for r in read_log(finished.brain, "adaptive_lr_adjustment")}
    for step in range(WARMUP + 1, STEPS + 1):
        assert train_records(finished.brain)[step]["lr"] == lr
        if step in changes:
            assert changes[step]["old_lr"] == lr
            lr = changes[step]["new_lr"]


def test_brain_bundle_is_complete_and_loads_with_transformers(finished: FinishedRun) -> None:
    brain = finished.brain
    model, tokenizer = AutoModelForCausalLM.from_pretrained(brain), AutoTokenizer.from_pretrained(brain)
    tokens = tokenizer("In the beginning", return_tensors="pt")
    assert model.generate(**tokens, max_new_tokens=4).shape[1] > tokens["input_ids"].shape[1]
    card = json.loads((brain / "brain.json").read_text())
    assert (card["name"], card["trained_steps"], card["tokenizer"]) == ("brain", STEPS, "bundled")
    assert card["last_session"]["eval_loss"] == read_log(brain, "eval")[-1]["loss"]
    assert [p.name for p in list_checkpoints(brain)] == [f"step-{STEPS}", "step-60"]
    newest = load_file(list_checkpoints(brain)[0] / "model.safetensors")
    assert all(torch.equal(newest[name], weight) for name, weight in load_file(brain / "model.safetensors").items())


def test_checkpoint_dict_has_the_keys_of_the_contract(finished: FinishedRun) -> None:
    state = torch.load(list_checkpoints(finished.brain)[0] / "state.pt", weights_only=True)
    assert state.keys() >= {"step", "optimizer", "scaler", "rng", "data", "config", "adaptive_lr", "format_version"}
    assert state["optimizer"]["param_groups"][0]["lr"] == state["adaptive_lr"]["control"]["scheduler"]["current_lr"]
    assert TrainingConfig(**state["config"]).steps == STEPS


def test_terminal_output_explains_the_run(finished: FinishedRun) -> None:
    out = finished.done.stdout
    for adjustment in read_log(finished.brain, "adaptive_lr_adjustment"):
        assert f"step {adjustment['step']}: {sentence(adjustment)}\n" in out
    assert read_log(finished.brain, "not_learning") == []
    for part in ("Evaluation loss", "Unigram entropy", "Learning rate", "LR adjustments", str(finished.brain), "ETA"):
        assert part in out
    assert "\x1b[" not in out  # no terminal: no control sequences
    assert finished.done.stderr == ""


def test_fresh_run_never_overwrites_a_brain(finished: FinishedRun) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.brain.rglob("*")}
    done = run_aios(*train_args(finished.brain.parent, "--steps=5"))
    assert done.returncode == 2
    assert "--resume" in done.stderr
    assert "--brain-name" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in finished.brain.rglob("*")} == before


def test_student_init_starts_from_the_brain(finished: FinishedRun, tmp_path: Path, psalms: Path) -> None:
    flags = (*THINKING, "--steps=12", "--lr=1e-3", "--warmup-steps=0", f"--dataset-file={psalms}")
    train(tmp_path, *flags, f"--student-init={finished.brain}")
    fresh = tmp_path / "fresh"
    train(fresh, *flags)
    assert train_records(tmp_path / "brain")[1]["ce"] < train_records(fresh / "brain")[1]["ce"] - 0.5


def test_accumulation_equals_the_bigger_batch(tmp_path: Path) -> None:
    flags = ("--steps=12", "--lr=1e-3", "--no-auto-adjust-lr", "--save-every=0", "--eval-every=0")
    train(tmp_path / "two", *flags, "--batch-size=4", "--gradient-accumulation-steps=2")
    train(tmp_path / "one", *flags, "--batch-size=8")
    two, one = train_records(tmp_path / "two" / "brain"), train_records(tmp_path / "one" / "brain")
    for key in ("ce", "grad_norm"):
        assert [two[s][key] for s in two] == pytest.approx([one[s][key] for s in one], rel=1e-4)


def test_fixed_learning_rate(tmp_path: Path) -> None:
    train(tmp_path, "--steps=20", "--lr=1e-3", "--warmup-steps=4", "--no-auto-adjust-lr")
    records = read_log(tmp_path / "brain")
    assert not [r for r in records if r["event"].startswith("adaptive_lr")]
    assert [r["lr"] for r in records if r["event"] == "train"][4:] == [1e-3] * 16


def test_moe_run_is_clamped_and_balanced(tmp_path: Path) -> None:
    train(tmp_path, "--steps=20", "--lr=5e-3", "--use-moe", "--num-experts=3")
    (clamp,) = read_log(tmp_path / "brain", "moe_lr_adjustment")
    assert (clamp["original_lr"], clamp["adjusted_lr"], clamp["step"]) == (5e-3, 1e-3, 0)
    (init,) = read_log(tmp_path / "brain", "adaptive_lr_init")
    assert (init["use_moe"], init["initial_lr"], init["lr_min"], init["lr_max"]) == (True, 1e-3, 1e-5, 2e-3)
    assert all(r["lb_loss"] > 0 for r in read_log(tmp_path / "brain", "train"))


def _poison(brain: Path, token: int) -> None:
    weights = load_file(brain / "model.safetensors")
    weights["embed_tokens.weight"][token] = math.nan
    save_file(weights, brain / "model.safetensors", metadata={"format": "pt"})


def test_non_finite_updates_are_skipped_and_braked(finished: FinishedRun, tmp_path: Path) -> None:
    """A weight that is NaN makes the loss NaN in those batches only that hold its token."""
    student = tmp_path / "student"
    shutil.copytree(finished.brain, student)
    (token,) = AutoTokenizer.from_pretrained(student)(" wilderness")["input_ids"][:1]
    _poison(student, token)
    flags = (*THINKING, "--steps=60", "--lr=1e-3", "--warmup-steps=0", "--batch-size=2")
    train(tmp_path, *flags, f"--student-init={student}")
    records = read_log(tmp_path / "brain", "train")
    bad = [r["step"] for r in records if r["ce"] is None]
    assert 0 < len(bad) < len(records)
    assert all(r["non_finite"] for r in records if r["ce"] is None)
    brakes = [r for r in read_log(tmp_path / "brain", "adaptive_lr_adjustment") if r["reason"] == "non_finite_loss"]
    assert brakes[0]["step"] == bad[0]
    assert brakes[0]["new_lr"] == pytest.approx(brakes[0]["old_lr"] / 2)
    weights: dict[str, Any] = load_file(tmp_path / "brain" / "model.safetensors")
    weights["embed_tokens.weight"][token] = 0.0
    assert all(bool(torch.isfinite(weight).all()) for weight in weights.values())


@pytest.mark.parametrize("flags", [["--amp"], ["--model-dtype=bf16"], ["--model-dtype=fp16"]])
def test_other_precisions_train(tmp_path: Path, flags: list[str]) -> None:
    train(tmp_path, "--steps=20", "--lr=5e-3", "--warmup-steps=2", "--gradient-checkpointing", *flags)
    records = read_log(tmp_path / "brain", "train")
    finite = [r["ce"] for r in records if r["ce"] is not None]
    assert finite[-1] < finite[0] - 0.3


def test_progress_line_on_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, child_side = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    process = ForkedAios(train_args(tmp_path, "--steps=20", "--lr=1e-3"), says=os.ttyname(child_side))
    shown = _read(terminal)
    os.close(child_side)  # it has opened it by now
    while chunk := _read(terminal):
        shown += chunk
    assert process.wait() == 0
    assert b"step 20 / 20" in shown
    assert re.search(rb"loss \d\.\d+  lr 1\.00e-03  [\d,]+ tok/s  ETA \d s", shown)
    assert b"\x1b[2K" in shown  # one line, rewritten in place


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError as error:
        if error.errno != errno.EIO:  # Linux's way of saying that the other side has closed
            raise
        return b""
