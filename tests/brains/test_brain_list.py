"""What became of a training, read from what it left on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from aios.brains.brain_list import Brain, State, free_name, list_brains, read_brain
from aios.brains.printed_output import open_output
from aios.brains.process_identity import birth_of, is_alive
from brains.left_behind import NOBODY, START, TRAIN, training_elsewhere, write_log, write_session


def state_of(folder: Path) -> Brain:
    brain = read_brain(folder)
    assert brain is not None
    return brain


def test_a_folder_without_a_training_is_no_brain(tmp_path: Path) -> None:
    assert read_brain(tmp_path) is None
    assert list_brains(tmp_path / "nothing") == []


def test_a_running_session_is_found_by_its_process(tmp_path: Path) -> None:
    write_session(tmp_path, pid=os.getpid())
    assert state_of(tmp_path).state is State.RUNNING
    assert state_of(tmp_path).steps == 600


def test_a_process_of_the_same_number_born_later_is_another_one() -> None:
    assert is_alive(os.getpid(), birth_of(os.getpid()))
    assert not is_alive(os.getpid(), "1 another-boot")
    assert not is_alive(NOBODY, None)


@pytest.mark.parametrize(
    ("asked", "ending", "state"),
    [
        ("pause", {"event": "stopped", "reason": "stop_file"}, State.PAUSED),
        ("stop", {"event": "stopped", "reason": "stop_file"}, State.STOPPED),
        (None, {"event": "stopped", "reason": "signal"}, State.STOPPED),
        (None, {"event": "stopped", "reason": "trouble"}, State.FAILED),
        ("finish", {"event": "final"}, State.FINISHED),
        ("kill", None, State.KILLED),
        (None, None, State.FAILED),
    ],
)
def test_the_state_of_an_ended_session(tmp_path: Path, asked: str | None, ending: Any, state: State) -> None:
    write_log(tmp_path, START, TRAIN, *([ending, {"event": "checkpoint"}] if ending else []))
    write_session(tmp_path, asked=asked)
    brain = state_of(tmp_path)
    assert brain.state is state
    assert brain.loss == 5.25


def test_a_crash_tells_its_last_error_sentence(tmp_path: Path) -> None:
    write_log(tmp_path, START, TRAIN)
    write_session(tmp_path, output="step 1/9\nError: first\n[worker 1] Error: The disk is full; free some.\nlater\n")
    assert state_of(tmp_path).sentence == "The disk is full; free some."


def test_a_crash_without_an_error_sentence_tells_its_last_words(tmp_path: Path) -> None:
    write_session(tmp_path, output="Segmentation fault\n\n")
    assert "Segmentation fault" in state_of(tmp_path).sentence


def test_what_a_resume_prints_follows_what_was_printed_before(tmp_path: Path) -> None:
    output = tmp_path / "b" / "output.txt"
    write_session(tmp_path / "b", output="Error: too little memory.\n")
    with open_output(output, ["aios", "hrm-hf", "train", "--resume"]) as stream:
        stream.write(b"step 5/9\n")
    before, line, after = output.read_text(encoding="utf-8").partition("===== ")
    assert before.strip() == "Error: too little memory."
    assert "aios hrm-hf train --resume\n" in line + after
    assert after.endswith("step 5/9\n")
    assert state_of(tmp_path / "b").sentence.endswith("its last words: step 5/9")  # not the error of the sitting before


def test_a_training_from_a_terminal_runs_before_its_first_step(tmp_path: Path) -> None:
    """Its lock says so: before there is a log, and while the log holds no step."""
    (tmp_path / "b").mkdir()
    with training_elsewhere(tmp_path / "b"):
        assert [(b.state, b.step) for b in list_brains(tmp_path)] == [(State.RUNNING, 0)]
        write_log(tmp_path / "b", {**START, "step": 0})
        assert [(b.state, b.step) for b in list_brains(tmp_path)] == [(State.RUNNING, 0)]
    assert state_of(tmp_path / "b").state is State.UNFINISHED


def test_an_ending_before_the_session_began_is_not_its_ending(tmp_path: Path) -> None:
    write_log(tmp_path, {**TRAIN, "ts": 1.0}, {"event": "final", "ts": 2.0})
    write_session(tmp_path, output="Error: too late\n")
    assert state_of(tmp_path).state is State.FAILED


def test_a_training_of_a_terminal_runs_while_it_holds_the_brain(tmp_path: Path) -> None:
    write_log(tmp_path, START, TRAIN, TRAIN)
    brain = state_of(tmp_path)
    assert (brain.state, brain.step, brain.steps, brain.session) == (State.UNFINISHED, 3, 40, None)
    with training_elsewhere(tmp_path):
        assert state_of(tmp_path).state is State.RUNNING


def test_a_terminal_that_takes_over_a_windows_brain_is_believed(tmp_path: Path) -> None:
    log = write_log(tmp_path, START, TRAIN)
    write_session(tmp_path)
    os.utime(tmp_path / "output.txt", (1.0, 1.0))
    with training_elsewhere(tmp_path):
        assert state_of(tmp_path).state is State.RUNNING
    assert state_of(tmp_path).state is State.UNFINISHED
    os.utime(log, (2.0, 2.0))
    assert state_of(tmp_path).state is State.FAILED


@pytest.mark.parametrize("text", ["no json\n", '{"half": ', "[1]\n2\nnull\n", "\x00\xff\n"])
def test_a_log_that_is_none_and_a_damaged_session_are_survived(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(text, encoding="utf-8")
    (tmp_path / "training.json").write_text('{"pid": 1}', encoding="utf-8")
    assert state_of(tmp_path).step == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": "1"}, {"pid": -1}, {"pid": True}, {"pid": 2**70}, {"birth": 5}, {"started": "today"},
        {"started": 10**400}, {"log": 5}, {"log": "a\0b"}, {"output": ["x"]}, {"stop_file": None}, {"steps": "many"},
        {"asked": {}}, {"deep": 1},
    ],
)  # fmt: skip
def test_a_strangers_session_is_as_good_as_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_log(tmp_path, START, TRAIN)
    write_session(tmp_path)
    written = json.loads((tmp_path / "training.json").read_text(encoding="utf-8"))
    (tmp_path / "training.json").write_text(json.dumps({**written, **changes}), encoding="utf-8")
    brain = state_of(tmp_path)
    assert brain.session is None
    assert brain.log == tmp_path / "metrics.jsonl"


@pytest.mark.parametrize("text", ["[" * 100_000, '{"ts": 1' + "0" * 400 + ', "event": "final", "step": 3}'])
def test_records_beyond_reason_are_survived(tmp_path: Path, text: str) -> None:
    (tmp_path / "training.json").write_text(text, encoding="utf-8")
    log = write_log(tmp_path, START, TRAIN)
    log.write_text(log.read_text(encoding="utf-8") + text + "\n", encoding="utf-8")
    assert state_of(tmp_path).loss == 5.25


def test_a_record_is_one_here_where_it_is_one_for_those_who_follow_the_log(tmp_path: Path) -> None:
    log = write_log(tmp_path, START, TRAIN)
    before = log.read_bytes()
    log.write_bytes(before + '{"event": "final", "step": 3, "note": "a\u2028line of a letter"}\n'.encode())
    assert state_of(tmp_path).state is State.FINISHED
    log.write_bytes(before + b'{"event": "final", "step": 3, "note": "no \xff UTF-8"}\n')
    assert state_of(tmp_path).state is State.UNFINISHED


def test_pipes_in_the_place_of_files_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "pipes").mkdir()
    for name in ("training.json", "metrics.jsonl", "config.json", "model.safetensors"):
        os.mkfifo(tmp_path / "pipes" / name)
    (brain,) = list_brains(tmp_path)
    assert (brain.step, brain.steps, brain.session) == (0, None, None)


def test_brains_are_listed_newest_first(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "older", "oldest")):
        log = write_log(tmp_path / name, START, TRAIN)
        os.utime(log, (1e9 - age, 1e9 - age))
    (tmp_path / "empty").mkdir()
    assert [brain.name for brain in list_brains(tmp_path)] == ["new", "older", "oldest"]


def test_a_free_name_is_proposed(tmp_path: Path) -> None:
    assert free_name(tmp_path, "mine") == "mine"
    (tmp_path / "mine" / "checkpoints" / "step-1").mkdir(parents=True)
    write_session(tmp_path / "mine-2")
    assert free_name(tmp_path, "mine") == "mine-3"
    assert free_name(tmp_path, "mine-2") == "mine-3"
    assert free_name(tmp_path, "mine", {tmp_path / "mine-3"}) == "mine-4"
    write_session(tmp_path / "batch-16")
    assert free_name(tmp_path, "batch-16") == "batch-16-2"  # of no “batch”


def evaluation(step: int, loss: float | None) -> dict[str, Any]:
    return {"event": "eval", "step": step, "loss": loss}


def test_the_training_loss_of_an_ended_run_is_the_one_it_closes_with(tmp_path: Path) -> None:
    workers = [{**TRAIN, "ce": ce, "rank": rank} for rank, ce in enumerate((5.5, 5.0))]
    summary = {"event": "adaptive_lr_summary", "rank": 0}
    write_log(tmp_path / "a", START, *workers, {"event": "final", "loss": 5.25}, summary)
    (brain,) = list_brains(tmp_path)
    assert (brain.state, brain.loss) == (State.FINISHED, 5.25)


def test_the_evaluations_newest_and_best_however_much_was_trained_since(tmp_path: Path) -> None:
    evaluated = [evaluation(20, 3.5), evaluation(40, 3.25), evaluation(60, 4.0)]
    write_log(tmp_path, START, *evaluated, *({**TRAIN, "step": step} for step in range(61, 6000)))
    brain = state_of(tmp_path)
    assert (brain.eval_loss, brain.best_loss) == (4.0, 3.25)
    write_log(tmp_path, START, *evaluated, {"event": "run_resumed", "step": 30}, evaluation(40, None))
    brain = state_of(tmp_path)
    assert (brain.eval_loss, brain.best_loss) == (None, 3.5)  # what was repeated counts no more


def test_steps_that_a_later_sitting_has_gone_back_behind_are_not_counted(tmp_path: Path) -> None:
    begun, trained = {**START, "step": 0}, [{**TRAIN, "step": step} for step in range(1, 58)]
    resumed = [{**START, "event": "run_resumed", "step": 40}, {**TRAIN, "step": 41}, {**TRAIN, "step": 42}]
    write_log(tmp_path, begun, *trained, *resumed)
    assert state_of(tmp_path).step == 42
    write_log(tmp_path, begun, *trained, *resumed, {**begun, "rank": None}, {**TRAIN, "step": 5})
    assert state_of(tmp_path).step == 5
    write_log(tmp_path, begun, *trained, {**resumed[0], "rank": 1}, {**resumed[1], "rank": 1})
    assert state_of(tmp_path).step == 57  # one of several workers


def test_a_run_that_was_asked_to_finish_ends_where_it_then_ends(tmp_path: Path) -> None:
    start = {"event": "run_start", "step": 0, "config": {"steps": 200}}
    anneal = {"event": "adaptive_lr_anneal", "step": 47, "start": 47, "end": 67, "reason": "finish_now"}
    write_log(tmp_path, start, {**TRAIN, "step": 47})
    write_session(tmp_path, asked="finish")
    assert state_of(tmp_path).progress == "47 / 200"
    write_log(tmp_path, start, {**TRAIN, "step": 47}, anneal, {**TRAIN, "step": 67}, {"event": "final", "step": 67})
    assert state_of(tmp_path).progress == "67 / 67"


def test_a_session_that_has_not_begun_in_the_log_ends_where_the_window_asked(tmp_path: Path) -> None:
    write_log(tmp_path, {**START, "ts": 1.0}, {**TRAIN, "ts": 2.0})
    write_session(tmp_path, pid=os.getpid())
    assert state_of(tmp_path).steps == 600
    write_log(tmp_path, {"event": "run_resumed", "config": {"steps": 70}})
    assert state_of(tmp_path).steps == 70


def test_brains_in_the_home_folder_are_found_by_its_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_log(tmp_path / "brains" / "mine", START, TRAIN)
    assert [brain.folder for brain in list_brains(Path("~/brains"))] == [tmp_path / "brains" / "mine"]
