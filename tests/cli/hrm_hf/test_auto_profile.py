"""Profile `auto` through the command line: search, anneal, finish now, resume in the middle of each."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from aios.data.tokenizer import bundled_corpus_path
from aios.replay.recording import read_recording
from aios.replay.replay import Choice, replay
from aios.settings.config import UNSEARCHED_LR
from aios.terminal.replay_view import same_decisions
from auto_lr.problems import peaks_of
from training_process import (
    AUTO,
    AUTO_STEPS,
    read_log,
    run_aios,
    start_training,
    train,
    train_args,
    train_records,
    wait_for,
    wait_for_step,
)


def test_climb_anneal_and_end(climbed: Path) -> None:
    brain, said = climbed / "brain", (climbed / "said.txt").read_text(encoding="utf-8")
    (climb,) = read_log(brain, "adaptive_lr_climb")
    (init,) = read_log(brain, "adaptive_lr_init")
    assert 1e-4 < climb["lr"] < 1e-1
    (final,) = read_log(brain, "final")
    assert 0 < climb["step"] == init["step"] < 0.4 * AUTO_STEPS
    found = [r for r in read_log(brain) if r["event"] in ("adaptive_lr_climb", "adaptive_lr_race")]
    assert 0 < sum(r["search_steps"] for r in found) == final["search_steps"] <= 0.08 * AUTO_STEPS
    assert f"{AUTO_STEPS} of {AUTO_STEPS} (finding the learning rate took the work of {final['search_steps']})" in said
    assert (init["initial_lr"], init["lr_min"], init["lr_max"]) == (climb["lr"], climb["lr_min"], climb["lr_max"])
    records = train_records(brain)
    assert list(records) == list(range(1, AUTO_STEPS + 1))  # those of the climb train, too
    cycle, rates = climb["steps_per_cycle"], [records[step]["lr"] for step in range(1, climb["step"] + 1)]
    in_cycles = rates[-cycle * len(climb["curve"]) :]
    peaks = peaks_of(in_cycles, cycle)
    assert peaks == pytest.approx([lr for lr, _ in climb["curve"]])
    assert peaks == sorted(peaks)
    assert peaks[-1] == pytest.approx(climb["edge"])
    assert records[climb["step"] + 1]["lr"] == climb["lr"]  # no other warm-up
    assert records[climb["step"] + 1]["ce"] < records[1]["ce"] - 0.3  # what was learned is kept
    (anneal,) = read_log(brain, "adaptive_lr_anneal")
    assert (anneal["start"], anneal["end"], anneal["reason"]) == (210, AUTO_STEPS, "end_of_run")
    falling = [records[step]["lr"] for step in range(anneal["start"], AUTO_STEPS + 1)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.02 * falling[0]
    assert records[AUTO_STEPS]["ce"] < records[1]["ce"] - 1
    assert f"{climb['lr']:.3g} is taken: {climb['reason']}." in said
    (asked,) = read_log(brain, "lr_asked")
    assert (asked["step"], asked["lr"], asked["used"]) == (0, 1e-5, False)
    sentence = f"The learning rate asked for, 1e-05, is not used: {asked['reason']}.\n"
    assert 0 < said.index(sentence) < said.index("is taken: ")


@pytest.mark.slow
def test_any_start_gives_the_same_run(tmp_path: Path) -> None:
    for lr in ("1e-5", "1e-1"):
        train(tmp_path / lr, *AUTO, f"--lr={lr}")
    low, high = (train_records(tmp_path / lr / "brain") for lr in ("1e-5", "1e-1"))
    assert [r["ce"] for r in low.values()] == [r["ce"] for r in high.values()]


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", [40, 250], ids=["rules", "anneal"])
def test_resume_equals_the_unbroken_run(tmp_path: Path, killed_at: int) -> None:
    flags = [*AUTO, "--save-every=30", "--gradient-accumulation-steps=2", "--batch-size=2"]
    train(tmp_path / "straight", *flags)
    process = start_training(tmp_path / "broken", *flags)
    wait_for_step(process, tmp_path / "broken" / "brain", killed_at)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(tmp_path / "broken", *flags, "--resume")
    straight, resumed = (train_records(tmp_path / name / "brain") for name in ("straight", "broken"))
    assert len(read_log(tmp_path / "broken" / "brain", "adaptive_lr_climb")) == 1
    assert [(r["ce"], r["lr"]) for r in resumed.values()] == [(r["ce"], r["lr"]) for r in straight.values()]


@pytest.mark.slow
def test_run_killed_at_its_start_resumes(climbed: Path, tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *AUTO)
    wait_for(process, lambda: (brain / "checkpoints" / "step-0").exists())
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(tmp_path, "--resume", "--adaptive-lr-profile=auto")
    straight, resumed = (train_records(b) for b in (climbed / "brain", brain))
    assert [r["ce"] for r in resumed.values()] == [r["ce"] for r in straight.values()]


def kill_after(step: int, folder: Path, *flags: str) -> None:
    """Train on, and kill it when `step` is done."""
    process = start_training(folder, *flags)
    wait_for_step(process, folder / "brain", step)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_log_says_which_weights_have_a_rate_of_their_own(climbed: Path) -> None:
    (told,) = read_log(climbed / "brain", "adaptive_lr_roles")
    assert (told["step"], told["role"], told["factor"]) == (0, "recurrent", 0.3)
    said = (climbed / "said.txt").read_text(encoding="utf-8")
    assert f"The recurrent weights of the model train at 0.3 times the rate of the rest: {told['reason']}." in said


def test_one_rate_for_all_is_what_the_blocks_bear(climbed: Path, tmp_path: Path) -> None:
    train(tmp_path, *AUTO, "--no-role-lr")
    assert not read_log(tmp_path / "brain", "adaptive_lr_roles")
    (climb,) = read_log(tmp_path / "brain", "adaptive_lr_climb")
    assert "a whole run wants 1/3.33 of that" in climb["reason"]


def test_run_killed_in_the_climb_in_the_rules_and_in_the_anneal_resumes_exactly(climbed: Path, tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    kill_after(8, tmp_path, *AUTO, "--save-every=4")
    assert not read_log(brain, "adaptive_lr_climb")
    # A checkpoint due past the knee ends the climb, as in any run that saves there: none is, at every 100th step.
    kill_after(120, tmp_path, *AUTO, "--save-every=100", "--resume")
    kill_after(240, tmp_path, *AUTO, "--save-every=29", "--resume")
    train(tmp_path, *AUTO, "--resume")
    straight, resumed = (train_records(b) for b in (climbed / "brain", brain))
    first, second, third = (record["step"] for record in read_log(brain, "run_resumed"))
    assert 4 <= first <= 20
    assert 90 <= second < 200
    assert 210 <= third < 300
    assert list(resumed) == list(range(1, AUTO_STEPS + 1))
    assert [(r["ce"], r["lr"]) for r in resumed.values()] == [(r["ce"], r["lr"]) for r in straight.values()]
    keys = ("step", "lr", "edge", "curve", "search_steps")
    climbs = [[[r[key] for key in keys] for r in read_log(b, "adaptive_lr_climb")] for b in (climbed / "brain", brain)]
    assert climbs[0] == climbs[1]
    assert len(climbs[0]) == 1


def test_finish_now_anneals_and_ends_early(tmp_path: Path) -> None:
    stop_file = tmp_path / "stop"
    process = start_training(tmp_path, "--adaptive-lr-profile=auto", "--steps=1000", f"--stop-file={stop_file}")
    wait_for_step(process, tmp_path / "brain", 140)
    stop_file.write_text("FINISH\n")
    process.communicate(timeout=120)
    assert process.returncode == 0
    (anneal,) = read_log(tmp_path / "brain", "adaptive_lr_anneal")
    (final,) = read_log(tmp_path / "brain", "final")
    assert anneal["reason"] == "finish_now"
    assert final["steps"] == anneal["end"] == anneal["step"] + 100
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
    assert [r["start"] for r in read_log(tmp_path / "brain", "adaptive_lr_anneal")] == [70, 240]
    (summary,) = (r for r in read_log(tmp_path / "brain", "adaptive_lr_summary") if r["step"] == 300)
    (climb,) = read_log(tmp_path / "brain", "adaptive_lr_climb")
    assert summary["total_steps"] == 300 - climb["step"] - 10


def test_tiny_budget_says_there_is_no_search(tmp_path: Path) -> None:
    done = train(tmp_path, "--adaptive-lr-profile=auto", "--steps=40")
    (climb,) = read_log(tmp_path / "brain", "adaptive_lr_climb")
    assert (climb["lr"], climb["step"], climb["search_steps"]) == (None, 0, 0)
    assert "too few steps for a search" in done.stdout
    assert not read_log(tmp_path / "brain", "lr_asked")  # it is what the run begins at
    assert list(train_records(tmp_path / "brain")) == list(range(1, 41))
    assert read_log(tmp_path / "brain", "adaptive_lr_init")[0]["initial_lr"] == UNSEARCHED_LR


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
    assert "Finding it costs a run of 300 steps" in done.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(tmp_path.iterdir()) == [picture]


def test_a_climb_whose_evaluations_were_lower_is_named_at_the_end(tmp_path: Path) -> None:
    text = tmp_path / "tiny.txt"
    text.write_text(bundled_corpus_path().read_text(encoding="utf-8")[:1500], encoding="utf-8")
    done = run_aios(
        *("hrm-hf", "train", "--preset=tiny", "--max-seq-len=32", "--batch-size=4", "--device=cpu", "--steps=200"),
        *(f"--dataset-file={text}", "--eval-every=5", f"--bundle-dir={tmp_path}", "--brain-name=brain"),
    )
    assert done.returncode == 0, done.stderr
    brain = tmp_path / "brain"
    (climb,), (final,) = read_log(brain, "adaptive_lr_climb"), read_log(brain, "final")
    evals = {r["step"]: r["loss"] for r in read_log(brain, "eval") if r["step"] <= climb["step"]}
    lowest = min(evals, key=lambda step: evals[step])
    assert evals[lowest] < final["best_eval_loss"]
    assert (final["climb_step"], final["climb_eval_loss"]) == (lowest, evals[lowest])
    told = f"the {evals[lowest]:.4f} of step {lowest} was on the way up in the search, whose evaluations do not count."
    assert told in done.stdout


def test_lr_find_leaves_an_earlier_picture_alone_where_it_searched_nothing(tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"an earlier one")
    done = run_aios("hrm-hf", "lr-find", *train_args(tmp_path, "--steps=20", f"--output={picture}")[2:])
    assert done.returncode == 0, done.stderr
    assert "No suggestion: too few steps" in done.stdout
    assert "curve" not in done.stdout
    assert picture.read_bytes() == b"an earlier one"


def test_profile_auto_is_what_the_ticked_box_means(tmp_path: Path) -> None:
    args = [arg for arg in train_args(tmp_path, "--steps=12") if not arg.startswith("--adaptive-lr-profile")]
    assert run_aios(*args).returncode == 0
    start = json.loads((tmp_path / "brain" / "metrics.jsonl").read_text().splitlines()[0])
    assert start["config"]["adaptive_lr_profile"] == "auto"
    assert read_log(tmp_path / "brain", "adaptive_lr_climb")


TRAINED = ("--adaptive-lr-profile=auto", "--steps=300", "--eval-every=0", "--save-every=15")


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The brain of a run that began from weights that were trained before."""
    folder = tmp_path_factory.mktemp("raced")
    before = ("--no-auto-adjust-lr", "--lr=1e-2", "--steps=200", "--warmup-steps=5", "--eval-every=0")
    train(folder / "before", *before)
    train(folder / "after", *TRAINED, f"--student-init={folder / 'before' / 'brain'}")
    return folder / "after" / "brain"


def test_a_trained_model_is_raced_first_and_the_race_comes_on_top(raced: Path) -> None:
    assert not read_log(raced, "adaptive_lr_climb")
    race, *_ = found = read_log(raced, "adaptive_lr_race")
    (warm,) = read_log(raced, "warmup_complete")
    (final,) = read_log(raced, "final")
    assert race["step"] == 0
    assert len(race["curve"]) >= 3
    assert race["curve"][0][0] <= race["lr"] <= race["curve"][-1][0]
    assert 0 < sum(r["search_steps"] for r in found) == final["search_steps"] <= 0.08 * 300
    records = train_records(raced)
    assert list(records) == list(range(1, 301))
    assert warm["step"] == 15
    assert [records[step]["lr"] for step in (1, 15)] == pytest.approx([race["lr"] / 15, race["lr"]])
    saved = [r["step"] for r in read_log(raced, "checkpoint") if r["step"] > 0]
    assert saved == [*range(15, 300, 15), 300]


def test_a_run_with_a_race_replays_as_recorded(raced: Path) -> None:
    recording = read_recording(raced)
    replayed = replay(recording, Choice())
    assert same_decisions(recording, replayed)
    assert replayed.lrs == [step.lr for step in replayed.steps]
    assert replayed.notes == []


def test_a_run_with_a_climb_replays_as_recorded(climbed: Path) -> None:
    recording = read_recording(climbed / "brain")
    replayed = replay(recording, Choice())
    assert same_decisions(recording, replayed)
    assert replayed.lrs == [step.lr for step in replayed.steps]
    assert replayed.notes == []
