"""Profile `auto` through the command line: search, anneal, finish now, resume in the middle of each."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from aios.replay.recording import read_recording
from aios.replay.replay import Choice, replay
from aios.terminal.replay_view import same_decisions
from training_process import (
    read_log,
    run_aios,
    start_training,
    train,
    train_args,
    train_records,
    wait_for,
    wait_for_step,
)

STEPS = 300
AUTO = ("--adaptive-lr-profile=auto", f"--steps={STEPS}", "--eval-every=0")


def test_search_anneal_and_end(tmp_path: Path) -> None:
    done = train(tmp_path, *AUTO, "--lr=1e-5")
    brain = tmp_path / "brain"
    (search,) = read_log(brain, "adaptive_lr_search")
    (init,) = read_log(brain, "adaptive_lr_init")
    assert 1e-4 < search["suggestion"] < 5e-2
    (final,) = read_log(brain, "final")
    assert search["step"] == 0
    assert 0 < search["search_steps"] == final["search_steps"] <= 0.08 * STEPS
    assert f"{STEPS} of {STEPS}, and {final['search_steps']} to find the learning rate" in done.stdout
    assert (init["initial_lr"], init["lr_min"], init["lr_max"]) == (
        search["suggestion"],
        search["lr_min"],
        search["lr_max"],
    )
    records = train_records(brain)
    assert list(records) == list(range(1, STEPS + 1))  # steps train; the search comes on top
    (anneal,) = read_log(brain, "adaptive_lr_anneal")
    assert (anneal["start"], anneal["end"], anneal["reason"]) == (210, STEPS, "end_of_run")
    falling = [records[step]["lr"] for step in range(anneal["start"], STEPS + 1)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.02 * falling[0]
    assert records[STEPS]["ce"] < records[1]["ce"] - 1
    assert f"search found LR {search['suggestion']:.3g}" in done.stdout


@pytest.mark.slow
def test_any_start_gives_the_same_run(tmp_path: Path) -> None:
    for lr in ("1e-5", "1e-1"):
        train(tmp_path / lr, *AUTO, f"--lr={lr}")
    low, high = (train_records(tmp_path / lr / "brain") for lr in ("1e-5", "1e-1"))
    assert [r["ce"] for r in low.values()] == [r["ce"] for r in high.values()]


@pytest.mark.parametrize("killed_at", [pytest.param(40, marks=pytest.mark.slow), 250], ids=["rules", "anneal"])
def test_resume_equals_the_unbroken_run(tmp_path: Path, killed_at: int) -> None:
    flags = [*AUTO, "--save-every=30", "--gradient-accumulation-steps=2", "--batch-size=2"]
    train(tmp_path / "straight", *flags)
    process = start_training(tmp_path / "broken", *flags)
    wait_for_step(process, tmp_path / "broken" / "brain", killed_at)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(tmp_path / "broken", *flags, "--resume")
    straight, resumed = (train_records(tmp_path / name / "brain") for name in ("straight", "broken"))
    assert len(read_log(tmp_path / "broken" / "brain", "adaptive_lr_search")) == 1
    assert [(r["ce"], r["lr"]) for r in resumed.values()] == [(r["ce"], r["lr"]) for r in straight.values()]


def test_run_killed_inside_the_search_resumes(tmp_path: Path) -> None:
    brain = tmp_path / "broken" / "brain"
    train(tmp_path / "straight", *AUTO)
    process = start_training(tmp_path / "broken", *AUTO)
    wait_for(process, lambda: (brain / "checkpoints" / "step-0").exists())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not read_log(brain, "train")
    train(tmp_path / "broken", "--resume", "--adaptive-lr-profile=auto")
    straight, resumed = (train_records(b) for b in (tmp_path / "straight" / "brain", brain))
    assert [r["ce"] for r in resumed.values()] == [r["ce"] for r in straight.values()]


def test_finish_now_anneals_and_ends_early(tmp_path: Path) -> None:
    stop_file = tmp_path / "stop"
    process = start_training(tmp_path, "--adaptive-lr-profile=auto", "--steps=2000", f"--stop-file={stop_file}")
    wait_for_step(process, tmp_path / "brain", 190)
    stop_file.write_text("FINISH\n")
    process.communicate(timeout=120)
    assert process.returncode == 0
    (anneal,) = read_log(tmp_path / "brain", "adaptive_lr_anneal")
    (final,) = read_log(tmp_path / "brain", "final")
    assert anneal["reason"] == "finish_now"
    assert final["steps"] == anneal["end"] == anneal["step"] + 200
    records = train_records(tmp_path / "brain")
    assert max(records) == anneal["end"]
    assert records[anneal["end"]]["lr"] < 0.02 * records[anneal["start"]]["lr"]
    assert not stop_file.exists()


@pytest.mark.slow
def test_annealed_run_that_goes_on_rises_gently(tmp_path: Path) -> None:
    flags = ("--adaptive-lr-profile=auto", "--lr=2e-3", "--eval-every=0")
    train(tmp_path, *flags, "--steps=100")
    train(tmp_path, *flags, "--steps=300", "--resume")
    lrs = {step: record["lr"] for step, record in train_records(tmp_path / "brain").items()}
    rising = [lrs[step] for step in range(100, 111)]
    assert rising == sorted(rising)
    assert rising[1] < 0.2 * lrs[70]
    assert lrs[110] == lrs[70]  # ten steps, 5 % of what is left, back to the rate before the anneal
    assert [r["start"] for r in read_log(tmp_path / "brain", "adaptive_lr_anneal")] == [70, 210]
    (summary,) = (r for r in read_log(tmp_path / "brain", "adaptive_lr_summary") if r["step"] == 300)
    assert summary["total_steps"] == 300 - 10 - 10


def test_tiny_budget_says_there_is_no_search(tmp_path: Path) -> None:
    done = train(tmp_path, "--adaptive-lr-profile=auto", "--steps=40", "--lr=1e-3")
    (search,) = read_log(tmp_path / "brain", "adaptive_lr_search")
    assert search["suggestion"] is None
    assert "too few steps for a search" in done.stdout
    assert list(train_records(tmp_path / "brain")) == list(range(1, 41))
    assert read_log(tmp_path / "brain", "adaptive_lr_init")[0]["initial_lr"] == 1e-3


@pytest.mark.slow
def test_anneal_fraction_zero_turns_the_anneal_off(tmp_path: Path) -> None:
    train(tmp_path, "--adaptive-lr-profile=auto", "--steps=40", "--lr=1e-3", "--anneal-fraction=0")
    assert not read_log(tmp_path / "brain", "adaptive_lr_anneal")
    assert train_records(tmp_path / "brain")[40]["lr"] > 5e-4


def test_lr_find_draws_and_trains_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    args = train_args(tmp_path, "--steps=300", f"--output={picture}")
    done = run_aios("hrm-hf", "lr-find", *args[2:])
    assert done.returncode == 0, done.stderr
    assert "Suggested learning rate:" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [picture]


def test_profile_auto_is_what_the_ticked_box_means(tmp_path: Path) -> None:
    args = [arg for arg in train_args(tmp_path, "--steps=12") if not arg.startswith("--adaptive-lr-profile")]
    assert run_aios(*args).returncode == 0
    start = json.loads((tmp_path / "brain" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["config"]["adaptive_lr_profile"] == "auto"
    assert read_log(tmp_path / "brain", "adaptive_lr_search")


CHALLENGED = ("--adaptive-lr-profile=auto", "--steps=1100", "--eval-every=0", "--save-every=15")
"""Long enough for the budget of the search to leave something to try a higher rate with."""


@pytest.fixture(scope="module")
def challenged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("challenged")
    train(folder, *CHALLENGED)
    return folder / "brain"


def test_a_higher_rate_is_tried_after_the_warm_up_and_its_steps_come_on_top(challenged: Path) -> None:
    (search,) = read_log(challenged, "adaptive_lr_search")
    (tried,) = read_log(challenged, "adaptive_lr_challenge")
    (result,) = read_log(challenged, "adaptive_lr_challenge_result")
    (warm,) = read_log(challenged, "warmup_complete")
    assert tried["step"] == warm["step"]
    assert tried["challenger_lr"] == pytest.approx(3 * search["suggestion"])
    assert tried["search_steps"] == search["trial_steps"] == 32
    (final,) = read_log(challenged, "final")
    assert search["search_steps"] + tried["search_steps"] == final["search_steps"] <= 0.08 * 1100
    records = train_records(challenged)
    assert list(records) == list(range(1, 1101))
    assert result["step"] == tried["step"] + 32
    own = [records[step]["ce"] for step in range(tried["step"] + 17, tried["step"] + 33)]
    gain = 1 - sum(tried["losses"][16:]) / sum(own)
    assert result["gain"] == pytest.approx(gain, rel=1e-6)
    raised = [r for r in read_log(challenged, "adaptive_lr_adjustment") if r["decision"] == "challenge_increase"]
    assert bool(raised) == result["won"]
    saved = [r["step"] for r in read_log(challenged, "checkpoint") if r["step"] > 0]
    assert saved == [*range(15, 1100, 15), 1100]


def test_a_run_with_a_challenge_replays_as_recorded(challenged: Path) -> None:
    recording = read_recording(challenged)
    replayed = replay(recording, Choice())
    assert same_decisions(recording, replayed)
    assert replayed.lrs == [step.lr for step in replayed.steps]
    assert replayed.notes == []


@pytest.mark.slow
def test_a_run_killed_during_the_comparison_ends_like_the_unbroken_one(challenged: Path, tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *CHALLENGED)
    wait_for_step(process, brain, read_log(challenged, "adaptive_lr_challenge")[0]["step"] + 20)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not read_log(brain, "adaptive_lr_challenge_result")
    train(tmp_path, *CHALLENGED, "--resume")
    for event, key in (("adaptive_lr_challenge_result", "gain"), ("adaptive_lr_adjustment", "new_lr")):
        assert [r[key] for r in read_log(brain, event)] == [r[key] for r in read_log(challenged, event)]
    straight, resumed = train_records(challenged), train_records(brain)
    assert [(r["ce"], r["lr"]) for r in resumed.values()] == [(r["ce"], r["lr"]) for r in straight.values()]
