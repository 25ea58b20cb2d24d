"""A real training as a child of its own: asked, killed, crashed, left alone and found again."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.main import get_command

from aios.brains.brain_list import State, is_training, read_brain
from aios.brains.process_identity import birth_of
from aios.brains.session_file import SessionFile
from aios.cli.hrm_commands import hrm_hf
from aios.errors import UserError
from aios.gui.training_control import TrainingControl, resume_config
from aios.gui.training_process import TrainingProcess, shown_command, training_arguments
from aios.settings.config import TrainingConfig
from brains.left_behind import START, TRAIN, write_log
from parsed_flags import parse_config
from training_process import TIMEOUT, read_log


def tiny(folder: Path, **more: object) -> TrainingConfig:
    shape = {"hidden_size": 32, "num_heads": 2, "max_seq_len": 32, "batch_size": 4}
    shape |= {"h_cycles": 1, "l_cycles": 1, "halt_max_steps": 1}
    return TrainingConfig(**shape, eval_batches=2, device="cpu", bundle_dir=str(folder), brain_name="b", **more)  # type: ignore[arg-type]


def wait(control: TrainingControl, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not happened():
        assert time.monotonic() < deadline, control.brain
        time.sleep(0.1)
        control.refresh()


def steps_done(control: TrainingControl) -> int:
    return control.brain.step if control.brain is not None else 0


def state(control: TrainingControl) -> State | None:
    return control.brain.state if control.brain is not None else None


def test_the_shown_command_means_the_config() -> None:
    config = TrainingConfig(steps=80, lr=1e-3, brain_name="a b", auto_adjust_lr=False, dataset_file="it's.txt")
    words = shlex.split(shown_command(training_arguments(config)))
    assert words[:3] == ["aios", "hrm-hf", "train"]
    train = get_command(hrm_hf).commands["train"]  # type: ignore[attr-defined]
    assert parse_config(train, words[3:]) == config


def test_a_resume_spells_the_steps_out_even_where_they_are_the_default() -> None:
    config = TrainingConfig(resume=True, steps=TrainingConfig().steps)
    assert "--steps=600" in training_arguments(config, 600)
    assert training_arguments(TrainingConfig(resume=True, steps=700), 700).count("--steps=700") == 1


@pytest.mark.slow
def test_paused_resumed_and_finished(tmp_path: Path) -> None:
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=4000))
    assert state(control) is State.RUNNING
    wait(control, lambda: steps_done(control) >= 5)
    control.ask("pause")
    assert control.waiting == "saving …"
    wait(control, lambda: not control.running)
    paused_at = steps_done(control)
    assert state(control) is State.PAUSED
    assert 5 <= paused_at < 4000
    assert list((tmp_path / "b" / "checkpoints").iterdir())

    control.resume(paused_at + 20)
    wait(control, lambda: not control.running)
    assert state(control) is State.FINISHED, control.brain
    assert steps_done(control) == paused_at + 20


def test_it_is_found_again_and_can_be_killed(tmp_path: Path) -> None:
    first = TrainingControl()
    first.start(tiny(tmp_path, steps=100_000))
    wait(first, lambda: steps_done(first) >= 3)

    second = TrainingControl()  # another window
    second.attach(tmp_path / "b")
    assert state(second) is State.RUNNING
    assert second.command == first.command
    second.ask("kill")
    wait(first, lambda: not first.running)
    assert state(first) is State.KILLED


def test_a_training_whose_folder_is_moved_away_stays_under_control(tmp_path: Path) -> None:
    """It goes on where the folder was; so does what tells that it runs, in this window and in all others."""
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=100_000))
    wait(control, lambda: steps_done(control) >= 3)
    (tmp_path / "b").rename(tmp_path / "moved")
    control.refresh()
    assert state(control) is State.RUNNING
    assert control.brain is not None
    assert control.brain.session is not None
    assert is_training(tmp_path / "b")
    control.ask("pause")
    wait(control, lambda: not control.running)
    assert state(control) is State.PAUSED
    assert control.brain.can_continue


def test_a_training_whose_folder_is_deleted_is_still_asked_to_end(tmp_path: Path) -> None:
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=100_000, save_every=40))
    wait(control, lambda: steps_done(control) >= 3)
    shutil.rmtree(tmp_path / "b")
    control.refresh()
    assert state(control) is State.RUNNING
    wait(control, lambda: (tmp_path / "b" / "checkpoints").is_dir())
    control.refresh()
    assert state(control) is State.RUNNING
    assert control.brain is not None
    assert control.brain.session is not None  # by which the window offers to kill it
    control.ask("pause")
    wait(control, lambda: not control.running)
    assert state(control) is State.PAUSED
    assert read_log(tmp_path / "b", "stopped")


def test_a_training_whose_folder_is_moved_is_still_killed(tmp_path: Path) -> None:
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=100_000, save_every=0))
    wait(control, lambda: steps_done(control) >= 3)
    (tmp_path / "b").rename(tmp_path / "moved")
    control.refresh()
    control.ask("kill")
    wait(control, lambda: not control.running)
    assert state(control) is State.KILLED


def test_a_crash_tells_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": 5}\n', encoding="utf-8")
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=10, dataset_file=str(broken)))
    wait(control, lambda: not control.running)
    assert state(control) is State.FAILED
    assert control.brain is not None
    assert control.brain.sentence.startswith(f"Line 2 of the dataset file {broken}")


def test_asking_a_training_that_has_ended_leaves_no_stop_file(tmp_path: Path) -> None:
    process = TrainingProcess(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"event": "final", "step": 3, "ts": 1.0}) + "\n")
    process.ask("stop")
    assert not (tmp_path / "STOP").exists()


def test_no_document_is_replaced_by_a_request_or_by_what_a_training_prints(tmp_path: Path) -> None:
    """The session file of a brain from elsewhere may name any file, and its output be a link to any."""
    document, brain = tmp_path / "document", tmp_path / "b"
    document.write_text("the only copy")
    brain.mkdir()
    session = SessionFile(os.getpid(), birth_of(os.getpid()), 1.0, [], str(brain / "metrics.jsonl"), str(document),
                          str(brain / "output.txt"), 9)  # fmt: skip
    session.save(brain)
    with pytest.raises(UserError, match="is no request to stop"):
        TrainingProcess(brain).ask("stop")
    (brain / "output.txt").symlink_to(document)
    control = TrainingControl()
    control.start(tiny(tmp_path, steps=1, dataset_file="/nowhere"))
    wait(control, lambda: not control.running)
    assert document.read_text() == "the only copy"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("a file where the brain should be")
    with pytest.raises(UserError, match="cannot be started"):
        TrainingProcess.start(tiny(tmp_path))


def test_a_resume_says_where_and_how_far(tmp_path: Path) -> None:
    write_log(tmp_path / "mine", START, TRAIN)
    brain = read_brain(tmp_path / "mine")
    assert brain is not None
    config = resume_config(brain, 90)
    assert (config.brain_dir, config.steps, config.resume) == (tmp_path / "mine", 90, True)
