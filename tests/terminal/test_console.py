"""What the terminal of a training shows of the records of its log."""

from __future__ import annotations

import pytest

from aios.run_view.sentences import sentence
from aios.terminal.console import RunConsole
from run_view.logs import Record, adjustment, train

FINISH: Record = {
    "event": "adaptive_lr_anneal", "ts": 1.0, "step": 148, "start": 148, "end": 348, "scale": 1.0,
    "reason": "finish_now",
}  # fmt: skip


def test_after_finish_now_the_total_is_the_new_one(capsys: pytest.CaptureFixture[str]) -> None:
    console = RunConsole(2000)
    for record in (train(1), FINISH, train(348)):
        console.show(record)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 1 / 2,000 ")
    assert lines[1] == f"step 148: {sentence(FINISH)}"
    assert lines[2].startswith("step 348 / 348 ")
    assert lines[2].endswith("ETA 0 s")


def test_the_terminal_says_the_sentences_of_the_timeline(capsys: pytest.CaptureFixture[str]) -> None:
    console = RunConsole(100)
    told = [adjustment(7), {"event": "eval", "step": 9, "loss": 3.25, "ppl": 25.8}, {"event": "stopped", "step": 9}]
    for record in (*told, {"event": "adaptive_lr_summary", "step": 9}):
        console.show(record)
    assert capsys.readouterr().out.splitlines() == [f"step {record['step']}: {sentence(record)}" for record in told]
    assert console.decisions == {"increase": 1}


def test_small_texts_are_tokenised_in_units_that_tell_something(capsys: pytest.CaptureFixture[str]) -> None:
    RunConsole(100).tokenizing(4_096, 300_000)
    assert capsys.readouterr().out == "Tokenising the data: 4.1 kB of 300 kB\n"


def test_the_closing_table_counts_adjustments_by_names_without_underlines() -> None:
    console = RunConsole(100)
    for decision in ("learning_decrease", "increase", "increase"):
        console.show(adjustment(7, decision))
    counted = ("LR adjustments", "1 learning decrease, 2 increases in this sitting")
    assert console.lines_of("Learning rate", "0.1") == [("Learning rate", "0.1"), counted]
