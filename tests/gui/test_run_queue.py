"""The queue as files, and whose turn it is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aios.brains.brain_list import Brain, State, free_name, list_brains
from aios.errors import UserError
from aios.gui.background import Background
from aios.gui.queue_control import QueueControl
from aios.gui.run_queue import RunQueue, with_whole_paths
from aios.settings.config import TrainingConfig
from brains.left_behind import START, TRAIN, training_elsewhere, write_log
from fault_injection import strace_or_skip
from training_process import TIMEOUT


@pytest.fixture
def queue(tmp_path: Path) -> RunQueue:
    return RunQueue(tmp_path / "queue")


def run(tmp_path: Path, name: str, **more: object) -> TrainingConfig:
    return TrainingConfig(bundle_dir=str(tmp_path / "brains"), brain_name=name, steps=7, **more)  # type: ignore[arg-type]


def names(queue: RunQueue) -> list[str]:
    return [run.name for run in queue.runs]


def test_it_outlives_the_window_in_order(tmp_path: Path, queue: RunQueue) -> None:
    assert queue.next is None
    for name in "abc":
        queue.add(run(tmp_path, name, lr=1e-3))
    assert names(RunQueue(tmp_path / "queue")) == ["a", "b", "c"]
    assert queue.next is not None
    assert queue.next.config == run(tmp_path, "a", lr=1e-3)


def test_runs_are_moved_and_removed(tmp_path: Path, queue: RunQueue) -> None:
    first, _, third = (queue.add(run(tmp_path, name)) for name in "abc")
    queue.pass_over(third, "no data")
    queue.move(third, -1)
    assert names(queue) == names(RunQueue(tmp_path / "queue")) == ["a", "c", "b"]
    assert [run.problem for run in queue.runs] == ["", "no data", ""]
    queue.move(first, -1)
    queue.move(queue.runs[2], 1)
    assert names(queue) == ["a", "c", "b"]
    assert queue.take(third)
    assert not queue.take(third)  # another window was quicker
    assert names(queue) == ["a", "b"]
    queue.move(queue.runs[1], -1)
    queue.add(run(tmp_path, "d"))
    assert names(queue) == ["b", "a", "d"]
    for each in queue.runs:
        queue.take(each)
    queue.add(run(tmp_path, "e"))
    assert not queue.take(first)  # its file holds another run now
    queue.add(run(tmp_path, "f"))
    assert names(queue) == ["e", "f"]


IN_ANOTHER_WINDOW = """
import sys
from pathlib import Path
from aios.gui.run_queue import RunQueue
from aios.settings.config import TrainingConfig

queue = RunQueue(Path(sys.argv[1]))
"""


def test_two_windows_that_queue_at_once_lose_no_run(tmp_path: Path, queue: RunQueue) -> None:
    many = IN_ANOTHER_WINDOW + (
        "print(flush=True); input()\n"
        "for at in range(12): queue.add(TrainingConfig(bundle_dir=sys.argv[1], brain_name=f'{sys.argv[2]}{at}'))"
    )
    command = [sys.executable, "-c", many, str(tmp_path / "queue")]
    windows = [
        subprocess.Popen([*command, name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for name in "abc"
    ]
    for window in windows:
        assert window.stdout is not None
        window.stdout.readline()
    for window in windows:
        assert window.stdin is not None
        print(file=window.stdin, flush=True)
    assert [window.wait(TIMEOUT) for window in windows] == [0, 0, 0]
    assert sorted(names(queue)) == sorted(f"{name}{at}" for name in "abc" for at in range(12))
    assert [name for name in names(queue) if name[0] == "b"] == [f"b{at}" for at in range(12)]


@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_window_killed_in_the_middle_of_a_move_loses_no_run(tmp_path: Path, queue: RunQueue, when: int) -> None:
    strace_or_skip()
    for name in "abc":
        queue.add(run(tmp_path, name))
    moves = IN_ANOTHER_WINDOW + "queue.move(queue.runs[0], 1); queue.move(queue.runs[2], -1)"
    calls = "rename,renameat,renameat2"
    fault = ["-f", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:signal=SIGKILL:when={when}"]
    subprocess.run(["strace", *fault, sys.executable, "-c", moves, str(tmp_path / "queue")], timeout=TIMEOUT)
    assert sorted(names(queue)) == ["a", "b", "c"]
    queue.add(run(tmp_path, "d"))
    assert names(queue)[3] == "d"


def test_one_brain_is_queued_once_and_its_name_is_no_free_one(tmp_path: Path, queue: RunQueue) -> None:
    queue.add(run(tmp_path, "a"))
    with pytest.raises(UserError, match="is queued already"):
        queue.add(run(tmp_path, "a"))
    assert free_name(tmp_path / "brains", "a", queue.brains) == "a-2"


def test_what_cannot_be_read_any_more_says_so_and_is_no_obstacle(tmp_path: Path, queue: RunQueue) -> None:
    queue.add(run(tmp_path, "a"))
    queue.add(run(tmp_path, "b"))
    (tmp_path / "queue" / "0001.toml").write_text('steps = 0\nbrain_name = "a"\n', encoding="utf-8")
    damaged, whole = queue.runs
    assert "“Steps” is 0" in damaged.problem
    assert queue.next == whole
    assert names(queue) == ["a", "b"]
    damaged.file.write_text("no settings", encoding="utf-8")
    assert names(queue) == ["0001.toml", "b"]


def test_paths_hold_wherever_the_next_window_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").mkdir()
    config = with_whole_paths(TrainingConfig(dataset_file="x.txt", model="words", log_file="y.jsonl"))
    assert (config.dataset_file, config.log_file) == (str(tmp_path / "x.txt"), str(tmp_path / "y.jsonl"))
    assert config.model == str(tmp_path / "words")
    assert Path(config.bundle_dir).is_absolute()
    assert with_whole_paths(TrainingConfig(model="gpt2")).model == "gpt2"


class Turns:
    """A queue whose runs only get their turn: what would be trained is written down."""

    def __init__(self, folder: Path, refuses: str = "") -> None:
        self.brains, self.started = folder / "brains", [""][:0]
        self._background, self._refuses = Background(), refuses
        self.control = QueueControl(self._background, self._start, lambda: None)
        self.control.queue = RunQueue(folder / "queue")

    def _start(self, config: TrainingConfig) -> None:
        if config.brain_name == self._refuses:
            raise UserError("There is no room.")
        self.started.append(config.brain_name)

    def tick(self) -> None:
        self.control.tick(list_brains(self.brains))
        deadline = time.monotonic() + 60
        while self._background.busy("queue") and time.monotonic() < deadline:
            time.sleep(0.01)
            self._background.deliver()

    def close(self) -> None:
        self._background.close()


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Callable[..., Turns]]:
    made: list[Turns] = []

    def make(*names: str, refuses: str = "") -> Turns:
        made.append(Turns(tmp_path, refuses))
        for name in names:
            made[0].control.queue.add(run(tmp_path, name))
        return made[0]

    yield make
    for each in made:
        each.close()


def test_a_run_waits_for_the_end_of_what_trains(tmp_path: Path, turns: Callable[..., Turns]) -> None:
    all_turns = turns("a", "b")
    write_log(tmp_path / "brains" / "now", START, TRAIN)
    with training_elsewhere(tmp_path / "brains" / "now"):
        all_turns.tick()
        assert all_turns.started == []
        assert all_turns.control.busy
        assert "“now” has ended" in all_turns.control.outlook
        assert "2 wait already" in (all_turns.control.notice or "")
    all_turns.tick()
    assert all_turns.started == ["a"]
    assert names(all_turns.control.queue) == ["b"]


def test_a_paused_run_keeps_its_turn(tmp_path: Path, turns: Callable[..., Turns]) -> None:
    all_turns = turns("a")
    paused = Brain(tmp_path / "brains" / "mine", Path("log"), State.PAUSED)
    all_turns.control.tick([paused])
    assert "“mine” is paused" in all_turns.control.outlook
    assert all_turns.started == []
    all_turns.control.tick([Brain(tmp_path / "brains" / "other", Path("log"), State.FINISHED), paused])
    all_turns.tick()
    assert all_turns.started == ["a"]


def test_settings_that_have_become_invalid_say_so_and_the_next_starts(
    tmp_path: Path, turns: Callable[..., Turns]
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The heavens declare " * 100)
    all_turns = turns()
    all_turns.control.queue.add(run(tmp_path, "a", dataset_file=str(text)))
    all_turns.control.queue.add(run(tmp_path, "b"))
    text.unlink()
    all_turns.tick()
    all_turns.tick()
    assert all_turns.started == ["b"]
    (left,) = all_turns.control.queue.runs
    assert left.name == "a"
    assert str(text) in left.problem


def test_a_run_that_cannot_be_started_stays_with_the_reason(turns: Callable[..., Turns]) -> None:
    all_turns = turns("a", "b", refuses="a")
    all_turns.tick()
    all_turns.tick()
    assert all_turns.started == ["b"]
    assert [(run.name, run.problem) for run in all_turns.control.queue.runs] == [("a", "There is no room.")]
