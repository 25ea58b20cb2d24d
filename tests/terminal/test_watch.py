"""Watching a run through its log: on a terminal and off it, to its end, through torn lines and a deleted log."""

from __future__ import annotations

import io
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aios.run_view.history import RunHistory
from aios.terminal.watch import Watched, watch_log
from aios.terminal.watch_view import progress_line, sparkline, view
from training_process import run_aios, start_training, wait_for, wait_for_step

START = {"event": "run_start", "ts": 100.0, "step": 0, "config": {"steps": 100, "brain_name": "psalms"}}
CHANGE = {
    "event": "adaptive_lr_adjustment", "ts": 103.0, "step": 3, "decision": "spike_decrease", "old_lr": 1e-3,
    "new_lr": 5e-4, "change_pct": -50.0, "reason": "loss_spike (4 vs 3)",
}  # fmt: skip
LOWERED = "Lowered the learning rate by 50 %, from 0.001 to 0.0005, because the loss jumped."


def step(number: int, ce: float | None = 3.0, rank: int | None = None, lr: Any = 1e-3) -> dict[str, Any]:
    record = {
        "event": "train", "ts": 100.0 + number, "step": number, "ce": ce, "lr": lr, "grad_norm": 0.5,
        "tokens_per_sec": 1000.0, "step_time_s": 1.0,
    }  # fmt: skip
    return record if rank is None else {**record, "rank": rank}


def write(path: Path, *records: dict[str, Any]) -> Path:
    with path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return path


def shown(path: Path, now: float = 104.0, width: int = 100) -> str:
    """The view of a log as text."""
    watched = Watched(path)
    watched.poll()
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(view(watched.history, watched.newest, now, console.options, watched.trouble))
    output = console.file
    assert isinstance(output, io.StringIO)
    return output.getvalue()


def test_the_view_tells_what_a_run_does_and_why(tmp_path: Path) -> None:
    evaluation = {"event": "eval", "ts": 103.5, "step": 4, "loss": 2.75, "ppl": 15.6}
    text = shown(write(tmp_path / "m.jsonl", START, step(1), step(2, 4.0), step(3), CHANGE, step(4, 2.5), evaluation))
    assert re.search(r"psalms +running +step 4 / 100 +ETA 1 min 36 s", text)
    assert re.search(r"^loss +2\.5000 \(smoothed 3\.1250\) +[▁-█]{4}", text, re.MULTILINE)
    assert re.search(r"^learning rate +0\.001 +[▁-█]{4}", text, re.MULTILINE)
    assert "2.7500 (perplexity 15.6) at step 4" in text
    assert re.search(r"3 +spike decrease +Lowered the learning rate by 50 %, from 0\.001 to 0\.0005", text)
    assert re.search(r"all +4 +2\.5000 +3\.1250 +0\.001 +0\.5000 +1,000", text)


def test_every_worker_has_a_row_and_nan_is_shown(tmp_path: Path) -> None:
    records = [step(n, 3.0 + rank, rank) for n in (1, 2) for rank in (0, 1)]
    text = shown(write(tmp_path / "m.jsonl", START, *records, step(3, None, 1), {**CHANGE, "rank": 1}))
    assert re.search(r"^0 +2 +3\.0000 +3\.0000", text, re.MULTILINE)
    assert re.search(r"^1 +3 +NaN +4\.0000", text, re.MULTILINE)
    assert re.search(r"3 +1 +spike decrease", text)


def test_param_groups_with_rates_of_their_own_are_all_shown(tmp_path: Path) -> None:
    assert "0.001 / 0.0002" in shown(write(tmp_path / "m.jsonl", START, step(1, lr=[1e-3, 2e-4])))


def test_a_run_that_falls_silent_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", START, step(1), step(2))
    assert "may have been killed" not in shown(path, now=150.0)
    assert "No step for 1 min 40 s: the training may have been killed" in shown(path, now=202.0)
    write(path, {"event": "final", "ts": 103.0, "step": 2})
    assert "may have been killed" not in shown(path, now=202.0)


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_the_view_fits_any_terminal(tmp_path: Path, width: int) -> None:
    path = write(tmp_path / "m.jsonl", START, *(step(n) for n in range(1, 101)), CHANGE)
    assert re.search(r"^loss", shown(path, width=width), re.MULTILINE)
    assert max(map(len, shown(path, width=width).splitlines())) <= width


@given(st.lists(st.floats(), max_size=300), st.integers(1, 80), st.booleans(), st.booleans())
def test_a_sparkline_never_fails_and_keeps_to_its_width(
    values: list[float], width: int, log: bool, ascii_only: bool
) -> None:
    line = sparkline(np.array(values), width, log, ascii_only)
    assert len(line) == min(width, len(values))
    assert line.isascii() or not ascii_only


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline(np.arange(8.0), 8) == "▁▂▃▄▅▆▇█"
    assert sparkline(np.array([1e-5, 1e-4, 1e-3, 1e-2]), 4, log=True) == sparkline(np.arange(4.0), 4) == "▁▃▆█"
    assert sparkline(np.array([1.0, math.nan, 2.0]), 3) == "▁x█"
    assert sparkline(np.array([5.0, 5.0]), 9) == "▅▅"


def test_a_progress_line_without_a_known_end() -> None:
    history = RunHistory()
    history.add([step(7)])
    assert progress_line(history, {None: step(7)}, 108.0) == (
        "step 7  loss 3.0000 (smoothed 3.0000)  lr 0.001  grad norm 0.5000  1,000 tok/s"
    )


def watch_in_thread(path: Path) -> tuple[threading.Thread, io.StringIO]:
    """`watch_log` on something that is no terminal, and what it prints."""
    output = io.StringIO()
    thread = threading.Thread(target=watch_log, args=(path, Console(file=output, highlight=False, width=200)))
    thread.start()
    return thread, output


def until(condition: Any) -> None:
    """Wait until `condition()`; the test's own time limit ends it otherwise."""
    while not condition():
        threading.Event().wait(0.02)


@pytest.mark.timeout(60)
def test_a_log_deleted_torn_and_written_anew_while_watching(tmp_path: Path) -> None:
    path = write(tmp_path / "m.jsonl", START, step(1))
    thread, output = watch_in_thread(path)
    until(lambda: "step 1 / 100" in output.getvalue())
    path.unlink()
    until(lambda: "is gone; waiting for it to come back" in output.getvalue())
    write(path, {**START, "ts": 101.0}, step(1), step(2))  # another run: it does not begin as the first did
    with path.open("a") as file:
        file.write(json.dumps(CHANGE)[:40])
    until(lambda: "Training starts" in output.getvalue())
    assert "Lowered" not in output.getvalue()
    with path.open("a") as file:
        file.write(json.dumps(CHANGE)[40:] + "\n")
    write(path, {"event": "stopped", "ts": 104.0, "step": 3, "reason": "stop_file"})
    thread.join()
    text = output.getvalue()
    assert f"step 3: {LOWERED}\n" in text
    assert text.count("is gone") == 1
    assert "The run has ended: stopped; 1 change of the learning rate on the way" in text.splitlines()[-1]


def test_a_finished_run_is_told_in_two_lines(tmp_path: Path) -> None:
    write(tmp_path / "metrics.jsonl", START, step(1), CHANGE, step(100), {"event": "final", "ts": 200.0, "step": 100})
    done = run_aios("hrm-hf", "watch", str(tmp_path))
    assert done.returncode == 0, done.stderr
    progress, ended = done.stdout.splitlines()
    assert progress.startswith("step 100 / 100  loss 3.0000")
    assert ended.startswith("The run has ended: finished; 1 change of the learning rate on the way")


def test_a_file_that_is_no_log_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello\nworld\n")
    done = run_aios("hrm-hf", "watch", str(tmp_path / "text"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "is no training log" in done.stderr


@pytest.mark.timeout(60)
@pytest.mark.parametrize("named", ["brain", "brain/metrics.jsonl"])
@pytest.mark.parametrize("is_there", [True, False], ids=["the folder is there", "nothing is there"])
def test_a_log_that_is_not_there_yet_is_waited_for(tmp_path: Path, named: str, is_there: bool) -> None:
    brain = tmp_path / "brain"
    if is_there:
        brain.mkdir()
    thread, output = watch_in_thread(tmp_path / named)
    until(lambda: "yet; waiting for a training to begin it" in output.getvalue())
    brain.mkdir(exist_ok=True)
    # In one go, as a run that had begun: what is there at first is told by one line.
    write(tmp_path / "whole", START, step(1), step(100), {"event": "final", "ts": 200.0, "step": 100})
    (tmp_path / "whole").rename(brain / "metrics.jsonl")
    thread.join()
    said, *rest = output.getvalue().splitlines()
    assert said.startswith(f"There is no log {tmp_path / named}")
    assert [line[:14] for line in rest] == ["step 100 / 100", "The run has en"]


def _heed_ctrl_c() -> None:
    """A shell that runs the tests in the background has them, and all they start, ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class OnTerminal:
    """`aios hrm-hf watch` as somebody at a terminal sees it."""

    def __init__(self, log: Path) -> None:
        self.master, slave = pty.openpty()
        command = [sys.executable, "-m", "aios", "hrm-hf", "watch", str(log)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True, text=True,
            preexec_fn=_heed_ctrl_c,
        )  # fmt: skip
        os.close(slave)
        self.text = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for data in self._pieces():
            self.text += data.decode(errors="replace")

    def _pieces(self) -> Iterator[bytes]:
        try:
            while data := os.read(self.master, 65536):
                yield data
        except OSError:  # Linux's word for: the other side has closed the terminal
            return

    def wait(self) -> int:
        code = self.process.wait(timeout=60)
        self._reader.join()
        os.close(self.master)
        return code


def test_a_training_watched_from_a_terminal_to_its_end(tmp_path: Path) -> None:
    training = start_training(tmp_path, "--steps=60", "--lr=3e-3")
    wait_for_step(training, tmp_path / "brain", 1)
    watching = OnTerminal(tmp_path / "brain")
    leaving = OnTerminal(tmp_path / "brain")
    wait_for(leaving.process, lambda: "step " in leaving.text)  # type: ignore[arg-type]
    leaving.process.send_signal(signal.SIGINT)
    assert leaving.wait() == 0
    assert "the training is not touched" in leaving.text
    assert training.wait(timeout=120) == 0, training.communicate()
    assert watching.wait() == 0
    last_frame = watching.text[watching.text.rindex("step 60 / 60") :]
    assert "finished" in watching.text
    words = " ".join(re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last_frame).split())
    assert "The run is finished with an evaluation loss of" in words
    assert "Traceback" not in watching.text + leaving.text
