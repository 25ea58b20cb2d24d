"""`--tensorboard`: what TensorBoard reads is what the log holds, over a resume too."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from aios.errors import UserError
from aios.runs.tensorboard_log import TensorBoardLog, scalars
from aios.settings.config import TrainingConfig
from aios.settings.preflight import check_inputs
from training_process import read_log, run_aios, start_training, train, train_args, train_records, wait_for_step

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read_board(folder: Path) -> event_accumulator.EventAccumulator:
    board = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    board.Reload()
    return board


def curve(folder: Path, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read_board(folder).Scalars(tag)]


def words(folder: Path, event: str) -> list[str]:
    tensors = read_board(folder).Tensors(f"{event}/text_summary")
    return [tensor.tensor_proto.string_val[0].decode() for tensor in tensors]


def test_every_number_of_a_record_has_a_tag() -> None:
    record = {
        "event": "train", "ts": 1.0, "step": 5, "rank": 1, "gpu_id": 1, "ce": math.nan, "lr": [1e-3, 2e-3],
        "non_finite": True, "metrics": {"cv": 0.5, "trend": None}, "path": "x", "config": {"steps": 7},
    }  # fmt: skip
    tags = dict(scalars(record))
    assert math.isnan(tags.pop("train/ce"))
    assert tags == {"train/lr/0": 1e-3, "train/lr/1": 2e-3, "train/metrics/cv": 0.5}


def test_nan_is_kept_and_changes_are_text_too(tmp_path: Path) -> None:
    change = {"decision": "decrease", "old_lr": 1e-3, "new_lr": 5e-4, "reason": "plateau (3 steps)"}
    with TensorBoardLog(str(tmp_path / "b"), 0) as board:
        board.write({"event": "train", "ts": 10.0, "step": 1, "ce": math.nan})
        board.write({"event": "adaptive_lr_adjustment", "ts": 11.0, "step": 1, **change})
    ((step, value),) = curve(tmp_path / "b", "train/ce")
    assert step == 1
    assert math.isnan(value)
    assert curve(tmp_path / "b", "adaptive_lr_adjustment/new_lr") == [(1, pytest.approx(5e-4))]
    assert words(tmp_path / "b", "adaptive_lr_adjustment") == ["**decrease** 0.001 -> 0.0005: plateau (3 steps)"]


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with TensorBoardLog(None, 0) as board:
        board.write({"event": "train", "ts": 1.0, "step": 1, "ce": 2.0})
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_and_resumed_is_one_curve(tmp_path: Path) -> None:
    brain, folder = tmp_path / "brain", tmp_path / "board"
    flags = ("--steps=40", "--lr=3e-3", "--save-every=15", f"--tensorboard={folder}")
    process = start_training(tmp_path, *flags)
    wait_for_step(process, brain, 25)
    process.kill()
    process.communicate()
    train(tmp_path, "--resume", "--eval-every=20", f"--tensorboard={folder}")
    logged = train_records(brain)
    for key in ("ce", "loss", "lr", "grad_norm", "tokens_per_sec"):
        expected = [(step, pytest.approx(record[key], rel=1e-5)) for step, record in logged.items()]
        assert curve(folder, f"train/{key}") == expected
    evaluations = [(r["step"], pytest.approx(r["loss"], rel=1e-5)) for r in read_log(brain, "eval")]
    assert curve(folder, "eval/loss") == evaluations
    assert curve(folder, "eval/ppl")
    adjustments = {r["step"]: r["reason"] for r in read_log(brain, "adaptive_lr_adjustment")}
    assert [step for step, _ in curve(folder, "adaptive_lr_adjustment/new_lr")] == list(adjustments)
    said = words(folder, "adaptive_lr_adjustment")  # those of repeated steps twice: the board keeps all words
    assert all(any(reason in text for text in said) for reason in adjustments.values())
    assert adjustments


def test_the_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(UserError, match=r"--tensorboard needs .*pip install 'aios-autolr\[tensorboard\]'"):
        check_inputs(TrainingConfig(tensorboard=str(tmp_path / "board")))
    check_inputs(TrainingConfig())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run_aios(*train_args(tmp_path, f"--tensorboard={tmp_path / 'file' / 'board'}"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "--tensorboard" in done.stderr
    assert not (tmp_path / "brain").exists()


@pytest.mark.slow
def test_each_independent_worker_has_curves_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "board"
    train(tmp_path, "--parallel-independent", "--world-size=2", "--merge-every=6", "--steps=12", "--lr=3e-3",
          f"--tensorboard={folder}")  # fmt: skip
    trained = read_log(tmp_path / "brain", "train")
    for rank in (0, 1):
        logged = [(r["step"], pytest.approx(r["ce"], rel=1e-5)) for r in trained if r["rank"] == rank]
        assert curve(folder / f"worker-{rank}", "train/ce") == logged
        assert len(logged) == 12
    (board,) = [path.parent for path in folder.glob("events.*")]
    assert [step for step, _ in curve(board, "merge/round")] == [6, 12]
