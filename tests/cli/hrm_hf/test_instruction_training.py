"""Training on instructions: the answers alone count, and nothing of that is lost on the way."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from absent_packages import hide
from training_process import read_log, run_aios, train, train_args, train_records, train_straight_and_killed

ROWS = 400
FLAGS = ("--lr=3e-3", "--warmup-steps=5", "--steps=60", "--eval-every=30")


def noisy_questions(folder: Path) -> Path:
    """Prompts of random letters, which nobody can learn, and one answer to all of them."""
    letters, path = random.Random(0), folder / "rows.jsonl"
    prompts = ["".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=12)) for _ in range(ROWS)]
    path.write_text("".join(json.dumps({"prompt": p, "completion": " yes it is so"}) + "\n" for p in prompts))
    return path


def test_the_loss_is_that_of_the_answers(tmp_path: Path) -> None:
    rows = noisy_questions(tmp_path)
    train(tmp_path, *FLAGS, f"--dataset-file={rows}")
    brain = tmp_path / "brain"
    first, last = read_log(brain, "eval")
    assert last["loss"] < 1.0  # of the prompts alone no model gets below 12 ln 26 nats to some 10 tokens
    assert first["tokens"] == last["tokens"] < 2 * 4 * 31 / 1.5  # of two batches of 4 rows, what is learned
    (start,) = read_log(brain, "run_start")
    assert start["unigram_entropy"] < math.log(10)


@pytest.mark.slow
def test_resume_is_exact(tmp_path: Path) -> None:
    rows = noisy_questions(tmp_path)
    flags = (*FLAGS, "--save-every=15", "--gradient-accumulation-steps=2", f"--dataset-file={rows}")
    straight, broken = train_straight_and_killed(tmp_path, *flags, at=33)
    for key in ("loss", "ce", "lr", "grad_norm"):
        assert [r[key] for r in train_records(straight).values()] == [r[key] for r in train_records(broken).values()]
    assert [r["loss"] for r in read_log(straight, "eval")][-1] == [r["loss"] for r in read_log(broken, "eval")][-1]


@pytest.mark.slow
def test_workers_of_one_model_learn_the_answers(tmp_path: Path) -> None:
    train(tmp_path, *FLAGS, f"--dataset-file={noisy_questions(tmp_path)}", "--ddp", "--world-size=2")
    assert read_log(tmp_path / "brain", "eval")[-1]["loss"] < 1.0


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl.gz", gzip.compress(b'{"text": "words"}\n' * 9000)[:-20], "cannot be unpacked by gzip"),
        ("a.txt.zst", b"plain text all along", "cannot be unpacked by zstd"),
        ("a.parquet", b"PAR1" * 9, "cannot be read as parquet"),
        ("a.jsonl", b'{"prompt": "a", "completion": "b"}\n{"text": "c"}\n', "Line 2"),
        ("a.jsonl", b'{"messages": [{"role": "user", "content": "hi"}]}\n', "without a turn of the assistant"),
    ],
)
def test_unusable_rows_are_one_sentence(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = run_aios(*train_args(tmp_path, f"--dataset-file={path}"))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert sentence in done.stderr
    assert (done.stderr.count("\n"), "Traceback" in done.stderr) == (1, False)


@pytest.mark.parametrize(("name", "package"), [("a.zst", "zstandard"), ("a.parquet", "pyarrow")])
def test_a_format_names_the_extra_that_it_lacks(tmp_path: Path, name: str, package: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    env = {**os.environ, "PYTHONPATH": hide(tmp_path / "hidden", package)}
    command = [sys.executable, "-m", "aios", *train_args(tmp_path, f"--dataset-file={tmp_path / name}")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    sentence = f"this needs the package {package}, which is not installed: pip install 'aios-autolr[data]'"
    assert (done.returncode, done.stderr) == (2, f"Error: {sentence}\n")
