"""A run whose evaluation loss turns up: the best brain is kept, gone back to, and published."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import aios.core.hrm_models  # noqa: F401  (registers the model)
from aios.core.hrm_models import HRMForCausalLM
from aios.replay.recording import read_recording
from aios.replay.replay import Choice, replay
from aios.run_view.reading import read_history
from aios.runs.brain import list_checkpoints, read_card
from aios.terminal.replay_view import same_decisions
from training_process import read_log, run_aios, start_training, train, train_records, wait_for, wait_for_step

STEPS = 79
WORDS = ["the", "and", "of", "that", "in", "he", "shall", "unto", "for", "his", "a", "they"]


def flags(folder: Path) -> list[str]:
    """A run that learns the words first, which lowers the evaluation loss, then an order that only its text has."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "order.txt").write_text((" ".join(WORDS) + " ") * 60, encoding="utf-8")
    (folder / "mixed.txt").write_text(" ".join(draw.choice(WORDS) for _ in range(700)), encoding="utf-8")
    texts = (f"--dataset-file={folder / 'order.txt'}", f"--eval-file={folder / 'mixed.txt'}", "--eval-every=3")
    size = ("--max-seq-len=16", "--batch-size=1", "--gradient-accumulation-steps=4", "--eval-batches=16")
    small = ("--halt-max-steps=1", "--h-cycles=1", "--l-cycles=1", "--lr=1e-2", f"--steps={STEPS}")
    return [*texts, *size, *small, "--save-every=7", "--keep-checkpoints=1", "--adaptive-lr-profile=auto"]


@pytest.fixture(scope="module")
def overfitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a brain whose run has finished by itself; its terminal's text lies beside it."""
    folder = tmp_path_factory.mktemp("overfitted")
    done = train(folder, *flags(folder))
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder


def test_the_run_ends_by_itself_and_publishes_its_best_brain(overfitted: Path) -> None:
    brain = overfitted / "brain"
    (told,) = read_log(brain, "overfitting")
    (anneal,) = read_log(brain, "adaptive_lr_anneal")
    (final,) = read_log(brain, "final")
    evals = {r["step"]: r["loss"] for r in read_log(brain, "eval")}
    assert told["done"] == "finish"
    assert told["best_eval_loss"] == evals[told["best_step"]] == min(v for s, v in evals.items() if s <= told["step"])
    assert told["eval_loss"] == evals[told["step"]] > told["best_eval_loss"] + told["noise"]
    assert (anneal["start"], anneal["end"], anneal["reason"]) == (told["step"], final["steps"], "overfitting")
    assert list(train_records(brain)) == list(range(1, final["steps"] + 1))
    assert final["steps"] < STEPS
    assert min((loss, step) for step, loss in evals.items()) == (final["best_eval_loss"], final["best_step"])
    after = [loss for step, loss in evals.items() if step > told["step"]]
    assert max(after) < 0.5 * (told["eval_loss"] + told["best_eval_loss"])  # it went on from the best state

    assert Path(final["best"]) == brain / "best"
    weights = [folder / "model.safetensors" for folder in (brain, brain / "best")]
    weights.append(brain / "checkpoints" / f"step-{final['best_step']}" / "model.safetensors")
    assert len({path.read_bytes() for path in weights}) == 1
    kept = {path.name for path in list_checkpoints(brain)}
    assert kept == {f"step-{final['steps']}", f"step-{final['best_step']}"}  # the best is never dropped


def test_best_loads_with_transformers_and_says_what_it_is(overfitted: Path) -> None:
    best = overfitted / "brain" / "best"
    (final,) = read_log(overfitted / "brain", "final")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(best), AutoTokenizer.from_pretrained(best)
    ids = tokenizer((overfitted / "mixed.txt").read_text(encoding="utf-8"), return_tensors="pt")["input_ids"]
    ids = ids[:, : ids.shape[1] // 16 * 16].reshape(-1, 16)[1:]
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).ce)
    assert loss == pytest.approx(final["best_eval_loss"], rel=0.1)
    card = read_card(best)
    assert card is not None
    assert (card.trained_steps, card.last_session["eval_loss"]) == (final["best_step"], final["best_eval_loss"])


def test_terminal_run_view_and_replay_tell_of_it(overfitted: Path) -> None:
    brain, said = overfitted / "brain", (overfitted / "said.txt").read_text(encoding="utf-8")
    (told,) = read_log(brain, "overfitting")
    (final,) = read_log(brain, "final")
    seen = f"its loss is {told['eval_loss']:.4f}, at step {told['best_step']} it was {told['best_eval_loss']:.4f}"
    sentence = f"Overfitting: the model begins to learn its text by heart (on text it has not seen {seen});"
    assert sentence in said
    assert "Best evaluation" in said
    history = read_history(brain)
    assert history.total_steps == final["steps"]
    assert history.state == "finished"
    assert sentence in [decision.sentence[: len(sentence)] for decision in history.decisions]
    assert f"the brain is that of step {final['best_step']}" in history.decisions[-1].sentence
    assert run_aios("hrm-hf", "lr-log", str(brain)).returncode == 0
    recording = read_recording(brain)
    replayed = replay(recording, Choice())
    assert same_decisions(recording, replayed)
    assert replayed.lrs == [step.lr for step in recording.ordered_steps() if step.step > 3]  # the warm-up has 3


def test_an_ended_run_is_over_and_what_it_shows_is_put_right(overfitted: Path, tmp_path: Path) -> None:
    shutil.copytree(overfitted, tmp_path / "copy")
    brain = tmp_path / "copy" / "brain"
    shutil.rmtree(brain / "best")
    weights = (brain / "model.safetensors").read_bytes()
    (brain / "model.safetensors").write_bytes(b"damaged")
    log = (brain / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (final,) = read_log(brain, "final")
    (brain / "metrics.jsonl").write_text("".join(log[:-1]), encoding="utf-8")  # killed before its last record
    done = train(tmp_path / "copy", *flags(overfitted), "--resume")
    assert "its evaluation loss had turned up" in done.stdout
    assert (brain / "model.safetensors").read_bytes() == weights == (brain / "best" / "model.safetensors").read_bytes()
    (closed,) = read_log(brain, "final")
    assert {k: v for k, v in closed.items() if k != "ts"} == {k: v for k, v in final.items() if k != "ts"} | {
        "checkpoint": closed["checkpoint"], "best": closed["best"], "wall_s": closed["wall_s"],
    }  # fmt: skip


def assert_same(straight: Path, resumed: Path) -> None:
    one, other = train_records(straight), train_records(resumed)
    assert [(s, r["ce"], r["lr"], r["grad_norm"]) for s, r in other.items()] == [
        (s, r["ce"], r["lr"], r["grad_norm"]) for s, r in one.items()
    ]
    keys = ("steps", "eval_loss", "best_step", "best_eval_loss")
    assert [read_log(resumed, "final")[-1][k] for k in keys] == [read_log(straight, "final")[-1][k] for k in keys]
    for name in ("model.safetensors", "best/model.safetensors"):
        assert (resumed / name).read_bytes() == (straight / name).read_bytes()


def test_killed_after_the_turn_it_resumes_exactly(overfitted: Path, tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *flags(tmp_path))
    wait_for(process, lambda: (brain / "metrics.jsonl").exists() and '"overfitting"' in read_text(brain))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(tmp_path, *flags(tmp_path), "--resume")
    assert_same(overfitted / "brain", brain)


@pytest.mark.slow
def test_killed_between_the_best_and_the_turn_it_resumes_exactly(overfitted: Path, tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    (told,) = read_log(overfitted / "brain", "overfitting")
    process = start_training(tmp_path, *flags(tmp_path))
    wait_for_step(process, brain, told["step"] - 3)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(tmp_path, *flags(tmp_path), "--resume")
    assert_same(overfitted / "brain", brain)


def read_text(brain: Path) -> str:
    return (brain / "metrics.jsonl").read_text(encoding="utf-8")


@pytest.mark.slow
def test_rules_train_to_the_end_and_publish_the_best(tmp_path: Path) -> None:
    train(tmp_path, *flags(tmp_path), "--adaptive-lr-profile=rules")
    brain = tmp_path / "brain"
    (told,) = read_log(brain, "overfitting")
    (final,) = read_log(brain, "final")
    assert told["done"] == "keep-best"
    assert (final["steps"], max(train_records(brain))) == (STEPS, STEPS)
    assert final["best_eval_loss"] < final["eval_loss"]
    card = read_card(brain)
    assert card is not None
    assert card.trained_steps == final["best_step"]
    assert (brain / "best" / "model.safetensors").read_bytes() == (brain / "model.safetensors").read_bytes()


def test_ignored_evaluations_change_nothing(tmp_path: Path) -> None:
    train(tmp_path, *flags(tmp_path), "--on-overfit=ignore", "--steps=50")
    brain = tmp_path / "brain"
    (final,) = read_log(brain, "final")
    assert (final["steps"], "best_step" in final) == (50, False)
    assert not read_log(brain, "overfitting")
    assert not (brain / "best").exists()
    card = read_card(brain)
    assert card is not None
    assert card.trained_steps == 50
    assert [r["step"] for r in read_log(brain, "checkpoint")] == [*range(0, 50, 7), 50]


@pytest.mark.slow
def test_more_steps_go_on_from_an_ended_run(overfitted: Path, tmp_path: Path) -> None:
    shutil.copytree(overfitted, tmp_path / "copy")
    train(tmp_path / "copy", *flags(overfitted), "--resume", "--on-overfit=keep-best")
    (first, second) = read_log(tmp_path / "copy" / "brain", "final")
    assert first["steps"] < second["steps"] == STEPS
    assert second["best_eval_loss"] <= first["best_eval_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["--eval-file={folder}/order.txt", "--eval-segments=2"])
def test_other_evaluations_are_not_compared_with_those_of_before(overfitted: Path, tmp_path: Path, other: str) -> None:
    shutil.copytree(overfitted, tmp_path / "copy")
    more = ("--on-overfit=keep-best", other.format(folder=overfitted), "--steps=60")
    train(tmp_path / "copy", *flags(overfitted), "--resume", *more)
    brain = tmp_path / "copy" / "brain"
    ended, now = read_log(brain, "final")
    since = {r["step"]: r["loss"] for r in read_log(brain, "eval") if r["step"] > ended["steps"]}
    assert now["best_eval_loss"] == min(since.values()) == since[now["best_step"]]


SEVERAL = {
    "ddp": ["--ddp", "--world-size=2"],
    "zero2": ["--zero-stage=zero2", "--world-size=2"],
    "zero3": ["--zero-stage=zero3", "--world-size=2"],
}


@pytest.mark.slow
@pytest.mark.parametrize("way", SEVERAL)
def test_workers_of_one_model_go_back_together(tmp_path: Path, way: str) -> None:
    if way != "ddp":
        pytest.importorskip("deepspeed")
    train(tmp_path, *flags(tmp_path), *SEVERAL[way])
    brain = tmp_path / "brain"
    (told,) = read_log(brain, "overfitting")
    (final,) = read_log(brain, "final")
    evals = {r["step"]: r["loss"] for r in read_log(brain, "eval")}
    assert told["done"] == "finish"
    assert final["steps"] < STEPS
    after = [loss for step, loss in evals.items() if step > told["step"]]
    assert max(after) < 0.5 * (told["eval_loss"] + told["best_eval_loss"])
    assert HRMForCausalLM.from_pretrained(brain).config.vocab_size == len(AutoTokenizer.from_pretrained(brain))


@pytest.mark.slow
def test_independent_workers_keep_the_best_merge(tmp_path: Path) -> None:
    merges = ("--parallel-independent", "--world-size=2", "--merge-every=6", "--gradient-accumulation-steps=1")
    train(tmp_path, *flags(tmp_path), *merges)
    brain = tmp_path / "brain"
    (final,) = read_log(brain, "final")
    merged = {r["step"]: r["eval_loss"] for r in read_log(brain, "merge")}
    assert final["steps"] == STEPS
    assert final["best_eval_loss"] == min(merged.values()) == merged[final["best_step"]]
    card = read_card(brain)
    assert card is not None
    assert card.trained_steps == final["best_step"]
