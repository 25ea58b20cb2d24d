"""Stopping and going on: kills, signals, the stop file, damaged checkpoints; resume is exact to the last bit."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from aios.runs.brain import list_checkpoints
from training_process import (
    THINKING,
    read_log,
    run_aios,
    start_training,
    train,
    train_args,
    train_records,
    wait_for,
    wait_for_step,
)

ADAPTIVE = ("--lr=2e-3", "--warmup-steps=5", "--gradient-accumulation-steps=2", "--eval-every=0")


@pytest.mark.parametrize(
    "model",
    [
        [*THINKING],
        pytest.param(["--use-moe", "--num-experts=3"], marks=pytest.mark.slow),
        pytest.param([*THINKING, "--halt-max-steps=3"], marks=pytest.mark.slow),
        pytest.param(["--compile"], marks=pytest.mark.slow),
    ],
    ids=["dense", "moe", "by_segment", "compiled"],
)
def test_checkpoint_resume(tmp_path: Path, model: list[str]) -> None:
    """60 steps straight equal 30 + SIGKILL + resume, bit for bit."""
    flags = [*ADAPTIVE, *model, "--steps=60", "--save-every=15"]
    train(tmp_path / "straight", *flags)
    broken = tmp_path / "broken" / "brain"
    process = start_training(tmp_path / "broken", *flags)
    wait_for_step(process, broken, 33)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (broken / "checkpoints" / "step-60").exists()
    train(tmp_path / "broken", "--resume", *model)

    straight, resumed = train_records(tmp_path / "straight" / "brain"), train_records(broken)
    assert list(resumed) == list(straight) == list(range(1, 61))
    for key in ("loss", "ce", "lr", "grad_norm"):
        assert [r[key] for r in resumed.values()] == [r[key] for r in straight.values()]
    assert len({r["lr"] for r in straight.values()}) > 6  # warm-up and at least one adjustment
    (again,) = read_log(broken, "run_resumed")
    assert again["step"] in (30, 45)
    assert again["resumed_from"].endswith(f"step-{again['step']}")
    (restored,) = read_log(broken, "adaptive_lr_restored")
    assert restored["from_step"] == again["step"]


def test_resume_goes_on_to_more_steps_with_one_history(tmp_path: Path, psalms: Path) -> None:
    train(tmp_path, "--steps=30", "--lr=1e-3", "--use-moe", f"--dataset-file={psalms}")
    train(tmp_path, "--steps=60", "--resume")
    records = read_log(tmp_path / "brain", "train")
    assert [r["step"] for r in records] == list(range(1, 61))
    assert records[30]["lr"] == pytest.approx(1e-3, rel=0.5)  # no second warm-up
    assert records[30]["ce"] < records[0]["ce"] - 0.5
    assert len(read_log(tmp_path / "brain", "warmup_complete")) == 1
    (resumed,) = read_log(tmp_path / "brain", "run_resumed")
    assert resumed["config"]["use_moe"]
    assert resumed["config"]["dataset_file"] == str(psalms)
    assert [r["step"] for r in read_log(tmp_path / "brain", "final")] == [30, 60]
    done = train(tmp_path, "--resume")
    assert "trained to step 60 already" in done.stdout


def test_new_settings_win_over_restored_ones(tmp_path: Path) -> None:
    train(tmp_path, "--steps=30", "--lr=1e-3", "--warmup-steps=0")
    settings = tmp_path / "s.toml"
    settings.write_text("[adaptive_lr]\nlr_max = 4e-4\npatience = 7\n")
    train(tmp_path, "--steps=45", "--resume", f"--adaptive-lr-config={settings}")
    assert all(r["lr"] <= 4e-4 for step, r in train_records(tmp_path / "brain").items() if step > 30)
    train(tmp_path, "--steps=50", "--resume", "--adaptive-lr-reset-state", "--lr=2e-4", "--no-auto-adjust-lr")
    assert train_records(tmp_path / "brain")[50]["lr"] == 2e-4


def test_resume_of_a_run_without_adaptive_state(tmp_path: Path) -> None:
    train(tmp_path, "--steps=20", "--lr=1e-3", "--no-auto-adjust-lr")
    train(tmp_path, "--steps=30", "--resume", "--auto-adjust-lr")
    (missing,) = read_log(tmp_path / "brain", "adaptive_lr_state_missing")
    assert missing["step"] == 20
    assert [train_records(tmp_path / "brain")[s]["lr"] for s in (20, 21)] == [1e-3, 1e-3]


def test_damaged_newest_checkpoint_is_skipped_aloud(tmp_path: Path) -> None:
    train(tmp_path, "--steps=30", "--lr=1e-3", "--save-every=10")
    newest = list_checkpoints(tmp_path / "brain")[0]
    (newest / "state.pt").write_bytes(b"damaged")
    done = train(tmp_path, "--resume")
    assert f"Skipped the damaged checkpoint {newest}" in done.stdout
    assert read_log(tmp_path / "brain", "run_resumed")[0]["step"] == 20
    assert list(train_records(tmp_path / "brain")) == list(range(1, 31))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_finishes_the_step_saves_and_exits_0(tmp_path: Path, number: signal.Signals) -> None:
    process = start_training(tmp_path, "--steps=100000", "--lr=1e-3")
    wait_for_step(process, tmp_path / "brain", 5)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "Evaluation loss" in out or "Training loss" in out
    (stopped,) = read_log(tmp_path / "brain", "stopped")
    assert stopped["reason"] == "signal"
    assert list_checkpoints(tmp_path / "brain")[0].name == f"step-{stopped['step']}"
    assert max(train_records(tmp_path / "brain")) == stopped["step"]
    assert not read_log(tmp_path / "brain", "final")


def test_second_signal_exits_at_once(tmp_path: Path) -> None:
    # A step takes seconds here (512 micro-batches), so the second signal comes while the first step still runs.
    process = start_training(tmp_path, "--steps=100000", "--gradient-accumulation-steps=512", "--max-seq-len=64")
    wait_for(process, lambda: (tmp_path / "brain" / "metrics.jsonl").exists())
    wait_for(process, lambda: bool(read_log(tmp_path / "brain", "adaptive_lr_init")))
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)  # two signals at once would be delivered as one
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert not list_checkpoints(tmp_path / "brain")


def test_stop_file_saves_stops_and_is_taken_away(tmp_path: Path) -> None:
    stop_file = tmp_path / "halt"
    process = start_training(tmp_path, "--steps=100000", "--lr=1e-3", f"--stop-file={stop_file}")
    wait_for_step(process, tmp_path / "brain", 3)
    stop_file.touch()
    process.communicate(timeout=60)
    assert process.returncode == 0
    (stopped,) = read_log(tmp_path / "brain", "stopped")
    assert stopped["reason"] == "stop_file"
    assert not stop_file.exists()
    train(tmp_path, "--resume", f"--steps={stopped['step'] + 2}")
    assert max(train_records(tmp_path / "brain")) == stopped["step"] + 2


def test_a_stopped_run_that_is_asked_for_no_more_stays_a_stopped_one(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, "--steps=100000", "--lr=1e-3", "--eval-every=2", "--save-every=2")
    wait_for_step(process, brain, 5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    (stopped,) = read_log(brain, "stopped")
    shown = {path.name: path.read_bytes() for path in brain.iterdir() if path.suffix in (".json", ".safetensors")}
    done = train(tmp_path, "--resume", f"--steps={stopped['step']}")
    assert f"trained to step {stopped['step']} already; raise --steps to go on" in done.stdout.replace("\n", " ")
    assert "killed" not in done.stdout
    assert not read_log(brain, "final")
    assert {name: (brain / name).read_bytes() for name in shown} == shown
    listed = run_aios("hrm-hf", "runs", f"--bundle-dir={tmp_path}").stdout
    assert "stopped" in listed
    assert "finished" not in listed


def test_torn_log_line_is_repaired_on_resume(tmp_path: Path) -> None:
    train(tmp_path, "--steps=10", "--lr=1e-3")
    with (tmp_path / "brain" / "metrics.jsonl").open("a") as log:
        log.write('{"event": "train", "step": 11, "lo')
    train(tmp_path, "--resume", "--steps=12")
    assert list(train_records(tmp_path / "brain")) == list(range(1, 13))


def test_resume_with_nothing_to_resume(tmp_path: Path) -> None:
    done = run_aios(*train_args(tmp_path, "--resume"))
    assert done.returncode == 2
    assert "no checkpoint to resume" in done.stderr
    assert not (tmp_path / "brain").exists()


def test_resume_refuses_another_architecture(tmp_path: Path) -> None:
    train(tmp_path, "--steps=5", "--lr=1e-3")
    of_preset = "--hidden-size is 32 there, not 256 as --preset small has it; leave --preset out, or train"
    for flag, there in (
        ("--hidden-size=64", "--hidden-size is 32 there, not 64; leave --hidden-size out, or train"),
        ("--use-moe", "--use-moe is False there, not True; leave --use-moe out, or train"),
        ("--preset=small", of_preset),
    ):
        done = run_aios("hrm-hf", "train", f"--bundle-dir={tmp_path}", "--brain-name=brain", "--resume", flag)
        assert done.returncode == 2
        assert there in done.stderr
