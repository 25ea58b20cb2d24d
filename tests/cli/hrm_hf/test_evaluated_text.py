"""Evaluations before and after a resume are compared where they are of the same tokens, wherever those lie."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aios.brains.brain_list import read_brain
from aios.runs.brain import read_card
from training_process import read_log, train

FLAGS = ("--steps=40", "--eval-every=20", "--no-auto-adjust-lr", "--lr=3e-3", "--max-seq-len=16")


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A text that is soon learned."""
    path = tmp_path / "text.txt"
    path.write_text("the king and the queen of the land said unto them all, " * 60, encoding="utf-8")
    return path


def test_a_text_that_has_grown_begins_the_evaluations_anew(tmp_path: Path, text: Path) -> None:
    train(tmp_path, *FLAGS, f"--dataset-file={text}")
    brain = tmp_path / "brain"
    draw = random.Random(0)
    with text.open("a", encoding="utf-8") as file:
        file.write(" ".join("".join(draw.choices("abcdefghijklmnop", k=5)) for _ in range(1500)))
    done = train(tmp_path, *FLAGS, "--resume", "--steps=80")
    assert "Evaluations begin anew: the text that is evaluated has changed since those before." in done.stdout
    (anew,) = read_log(brain, "evaluations_anew")
    assert anew["step"] == 40
    before, after = [r["loss"] for r in read_log(brain, "eval") if r["step"] <= 40], read_log(brain, "eval")[-2:]
    best = min(after, key=lambda record: record["loss"])
    assert best["loss"] > min(before)  # held against those, all of it would be thrown away
    final = read_log(brain, "final")[-1]
    assert (final["best_step"], final["best_eval_loss"]) == (best["step"], best["loss"])
    card, seen = read_card(brain), read_brain(brain)
    assert card is not None
    assert seen is not None
    assert (card.trained_steps, seen.best_loss) == (best["step"], best["loss"])
    start, resumed = read_log(brain, "run_start")[0]["eval_id"], read_log(brain, "run_resumed")[0]["eval_id"]
    assert start != resumed


def test_the_same_text_elsewhere_keeps_the_best_brain(tmp_path: Path, text: Path) -> None:
    train(tmp_path, *FLAGS, f"--dataset-file={text}")
    brain = tmp_path / "brain"
    best = read_log(brain, "final")[-1]["best_eval_loss"]
    other = tmp_path / "copied.txt"
    other.write_bytes(text.read_bytes())
    done = train(tmp_path, *FLAGS, "--resume", "--steps=60", f"--dataset-file={other}", "--lr=0.5")
    assert read_log(brain, "eval")[-1]["loss"] > best
    assert "the brain is that of step 40" in done.stdout
    assert "begin anew" not in done.stdout
    seen = read_brain(brain)
    assert seen is not None
    assert seen.best_loss == best
