"""`aios hrm-hf plot` and `lr-log` as child processes on the log of a real, tiny run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from aios.run_view.reading import read_history
from aios.run_view.sentences import sentence
from training_process import read_log, run_aios, train

SIZE = (800, 1280, 4)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory, psalms: Path) -> Path:
    """A brain trained 200 steps at a rate that is far too high, so that there is something to adjust."""
    folder = tmp_path_factory.mktemp("brains")
    train(folder, f"--dataset-file={psalms}", "--steps=200", "--lr=0.02", "--eval-every=50")
    return folder / "brain"


def colours(picture: Path) -> int:
    return len(np.unique((255 * imread(picture)).astype(np.uint8).reshape(-1, 4), axis=0))


def test_lr_log_gives_every_decision_of_the_log_as_data(brain: Path) -> None:
    done = run_aios("hrm-hf", "lr-log", str(brain / "metrics.jsonl"), "--json")
    assert done.returncode == 0, done.stderr
    listed = [json.loads(line) for line in done.stdout.splitlines()]
    logged = [r for r in read_log(brain) if r["event"] not in ("train", "eval", "checkpoint", "adaptive_lr_summary")]
    assert [(row["event"], row["step"], row["ts"]) for row in listed] == [
        (r["event"], r["step"], r["ts"]) for r in logged
    ]
    for row, record in zip(listed, logged, strict=True):
        assert row["sentence"] == sentence(record)
        assert {"kind", "span", "numbers", "decision", "old_lr", "new_lr", "reason", "metrics"} <= row.keys()
    changes = [row for row in listed if row["kind"] == "adjustment"]
    assert len(changes) >= 2
    keys = ("step", "decision", "old_lr", "new_lr", "change_pct", "reason", "metrics", "ts")
    made = read_log(brain, "adaptive_lr_adjustment")
    assert [{key: row[key] for key in keys} for row in changes] == [{key: row[key] for key in keys} for row in made]
    (warmup,) = (row for row in listed if row["event"] == "adaptive_lr_init")
    assert (warmup["kind"], warmup["span"]) == ("warm-up", [0, warmup["warmup_steps"]])


def test_lr_log_tells_the_run_in_sentences_with_their_numbers(brain: Path) -> None:
    history = read_history(brain)
    done = run_aios("hrm-hf", "lr-log", str(brain))
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "step decision what was done, and why"
    text = " ".join(lines[1:])
    at = 0
    for decision in history.decisions:  # in their order, each with its numbers behind it
        rows = [f"{decision.step:,} {decision.label} {decision.sentence}", *(f"{n} {v}" for n, v in decision.numbers)]
        at = text.index(" ".join(rows), at)
    assert (history.decisions[0].kind, history.decisions[-1].kind) == ("start", "end")


def test_plot_draws_one_run(brain: Path, tmp_path: Path) -> None:
    picture = tmp_path / "run.png"
    done = run_aios("hrm-hf", "plot", str(brain / "metrics.jsonl"), "-o", str(picture))
    assert done.returncode == 0, done.stderr
    assert imread(picture).shape == SIZE
    assert colours(picture) > 50


def test_plot_lays_runs_over_each_other_in_the_dark(brain: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.png", tmp_path / "two.svg"
    assert run_aios("hrm-hf", "plot", str(brain), "--dark", "-o", str(one)).returncode == 0
    assert np.median(imread(one)[..., :3]) < 0.25
    assert run_aios("hrm-hf", "plot", str(brain), str(brain / "metrics.jsonl"), "-o", str(two)).returncode == 0
    assert two.read_text(encoding="utf-8").startswith("<?xml")


@pytest.mark.parametrize("command", ["plot", "lr-log"])
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("nothing.jsonl", None, "There is no log"),
        ("letter.txt", "Dear Sir\n", "none of its lines is a JSON object"),
        ("texts.jsonl", '{"text": "In the beginning"}\n', "holds no records of a training run"),
        ("empty.jsonl", "", "holds no records of a training run"),
    ],
)
def test_bad_logs_are_refused_in_one_sentence(
    tmp_path: Path, command: str, name: str, content: str | None, said: str
) -> None:
    log = tmp_path / name
    if content is not None:
        log.write_text(content, encoding="utf-8")
    done = run_aios("hrm-hf", command, str(log))
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert str(log) in done.stderr


@pytest.mark.parametrize("name", ["a" * 300, "/tmp/" + "/".join(["b" * 200] * 25)], ids=["a name", "a path"])
@pytest.mark.parametrize("args", [("lr-log", "NAME"), ("plot", "LOG", "-o", "NAME.png"), ("watch", "NAME")], ids=str)
def test_a_name_too_long_is_told_as_such_in_a_line_or_two(tmp_path: Path, args: tuple[str, ...], name: str) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"event": "run_start", "ts": 0.0, "step": 0}\n', encoding="utf-8")
    done = run_aios("hrm-hf", *(arg.replace("NAME", name).replace("LOG", str(log)) for arg in args))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "longer than the file system allows; shorten it" in done.stderr
    assert len(done.stderr) < 300


def test_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    done = run_aios("hrm-hf", "lr-log", str(tmp_path))
    assert done.returncode == 2
    assert "holds no metrics.jsonl" in done.stderr


@pytest.mark.parametrize("output", ["run.txt", "file/run.png", "folder.png", "nowhere/run.png", "no/where/run.png"])
def test_plot_refuses_an_output_that_cannot_be(brain: Path, tmp_path: Path, output: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    done = run_aios("hrm-hf", "plot", str(brain), "-o", str(tmp_path / output))
    assert done.returncode == 2
    assert "--output" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.png"}


def test_plot_of_a_run_without_a_step_says_so(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"event": "run_start", "ts": 0.0, "step": 0}\n', encoding="utf-8")
    done = run_aios("hrm-hf", "plot", str(log), "-o", str(tmp_path / "run.png"))
    assert done.returncode == 2
    assert "no training step yet" in done.stderr
    assert not (tmp_path / "run.png").exists()
