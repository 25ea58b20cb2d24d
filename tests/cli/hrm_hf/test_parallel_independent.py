"""Independent workers: real processes that train apart, merge, die, are replaced and stop together."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from aios.data.dataset import DataConfig, TrainBatches, load_data
from aios.data.tokenizer import load_tokenizer
from aios.runs.brain import list_checkpoints, read_card
from aios.runs.checkpoints import load_state, newest_valid
from aios.settings.estimate import PROCESS_BYTES
from training_process import TIMEOUT, read_log, run_aios, start_training, train, train_args
from worker_processes import independent_pids, records_of, until_gone, wait_for_worker

THREE = ("--parallel-independent", "--world-size=3", "--lr=4e-3", "--warmup-steps=5")
TWO = ("--parallel-independent", "--world-size=2", "--lr=4e-3", "--warmup-steps=5", "--eval-every=0")


@pytest.fixture(scope="module")
def three_workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The brain of a run of three workers over 120 steps, merged every 60."""
    folder = tmp_path_factory.mktemp("three")
    done = train(folder, *THREE, "--steps=120", "--merge-every=60", "--eval-every=60", "--eval-batches=8")
    (folder / "said.txt").write_text(done.stdout, encoding="utf-8")
    return folder / "brain"


def test_what_all_workers_read_and_take_together_is_foretold(three_workers: Path) -> None:
    said = (three_workers.parent / "said.txt").read_text(encoding="utf-8")
    tokens = read_log(three_workers, "run_start")[0]["train_tokens"]
    assert f"{tokens:,} tokens of text; 120 steps read {100 * 3 * 120 * 4 * 32 / tokens:.0f} % of them.\n" in said
    memory = re.search(r"parameters; about (\d+) MB of memory; the time is known after the first steps.\n", said)
    assert memory is not None
    assert 3 * PROCESS_BYTES < int(memory[1]) * 1e6 < 3 * PROCESS_BYTES + 60e6


def test_each_worker_has_its_own_learning_rate_path_and_tag_in_one_log(three_workers: Path) -> None:
    paths = []
    for rank in range(3):
        mine = records_of(three_workers, rank)
        assert [r["step"] for r in mine] == list(range(1, 121))
        paths.append(tuple(r["lr"] for r in mine))
        (init,) = records_of(three_workers, rank, "adaptive_lr_init")
        assert init["window_size"] == 10
        (summary,) = records_of(three_workers, rank, "adaptive_lr_summary")
        assert summary["total_steps"] == 115
        assert records_of(three_workers, rank, "adaptive_lr_adjustment")
    assert len(set(paths)) == 3
    assert all(r["rank"] in (None, 0, 1, 2) for r in read_log(three_workers))
    (start,) = read_log(three_workers, "run_start")
    assert (start["world_size"], start["rank"]) == (3, None)


def test_merged_model_is_better_than_each_worker_before_the_merge(three_workers: Path) -> None:
    merges = read_log(three_workers, "merge")
    assert [m["step"] for m in merges] == [60, 120]
    for merge in merges:
        assert merge["weights"] == pytest.approx([1 / 3] * 3)
        own = [
            r["loss"]
            for rank in range(3)
            for r in records_of(three_workers, rank, "eval")
            if r["step"] == merge["step"]
        ]
        assert own == merge["worker_eval_losses"]
    assert merges[-1]["eval_loss"] < min(merges[-1]["worker_eval_losses"])
    (final,) = read_log(three_workers, "final")
    assert (final["steps"], final["eval_loss"]) == (120, merges[-1]["eval_loss"])


def test_workers_start_from_the_same_weights_and_from_the_merged_ones(three_workers: Path) -> None:
    losses = [[r["ce"] for r in records_of(three_workers, rank)] for rank in range(3)]
    assert max(run[0] for run in losses) - min(run[0] for run in losses) < 0.2
    assert len({run[0] for run in losses}) == 3  # on different data


def test_shares_of_the_data_are_disjoint_and_complete(three_workers: Path) -> None:
    """Every worker drew its rows of the same positions, and a whole epoch of such positions is every window once."""
    state = load_state(list_checkpoints(three_workers)[0])
    assert state["worker_steps"] == [120] * 3
    assert [data["samples"] for data in state["data"]] == [120 * 4 * 3] * 3
    config = DataConfig(Path(__file__), seq_len=8)
    windows = load_data(config, load_tokenizer(None)).train
    shares = [TrainBatches(windows, 0, batch_size=4, rank=rank, world_size=3) for rank in range(3)]
    positions = len(windows) // 12
    drawn = [index for share in shares for position in range(positions) for index in share.indices(position)]
    assert len(set(drawn)) == len(drawn) == 12 * positions > 100
    last = [index for share in shares for index in share.indices(positions)]
    assert {*drawn, *last} == set(range(len(windows)))


def test_what_is_left_is_a_brain_with_the_state_of_every_worker(three_workers: Path) -> None:
    newest = list_checkpoints(three_workers)[0]
    assert newest.name == "step-120"
    state = load_state(newest)
    assert len(state["adaptive_lr"]) == len(state["optimizer"]) == 3
    for rank, own in enumerate(state["adaptive_lr"]):
        changes = [r["new_lr"] for r in records_of(three_workers, rank, "adaptive_lr_adjustment")]
        assert own["control"]["scheduler"]["lr_history"] == [4e-3, *changes]
    assert (newest / "model.safetensors").read_bytes() == (three_workers / "model.safetensors").read_bytes()
    card = read_card(three_workers)
    assert card is not None
    assert card.trained_steps == 120
    assert not (three_workers / "merge").exists()


@pytest.mark.slow
def test_resume_with_another_number_of_workers_keeps_the_learning_rates(three_workers: Path) -> None:
    state = load_state(list_checkpoints(three_workers)[0])
    train(three_workers.parent, "--resume", "--steps=124", "--world-size=2")
    for rank in range(2):
        restored = records_of(three_workers, rank, "adaptive_lr_restored")
        assert [r["current_lr"] for r in restored] == [state["adaptive_lr"][rank]["control"]["scheduler"]["current_lr"]]
        assert [r["step"] for r in records_of(three_workers, rank)][-4:] == [121, 122, 123, 124]
    assert records_of(three_workers, 2)[-1]["step"] == 120


@pytest.mark.slow
def test_an_ordinary_run_goes_on_as_independent_workers_and_they_as_ranks_of_one_model(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    train(tmp_path, "--steps=20", "--lr=2e-3", "--warmup-steps=0")
    train(tmp_path, "--resume", "--parallel-independent", "--world-size=2", "--merge-every=5", "--steps=30")
    for rank in range(2):
        (restored,) = records_of(brain, rank, "adaptive_lr_restored")
        assert restored["from_step"] == 20
        assert [r["step"] for r in records_of(brain, rank)] == list(range(21, 31))
    train(tmp_path, "--resume", "--ddp", "--world-size=1", "--steps=34")
    assert read_log(brain, "adaptive_lr_restored")[-1]["from_step"] == 30
    assert [r["step"] for r in read_log(brain, "train")][-4:] == [31, 32, 33, 34]


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_only_its_steps_since_the_merge_are_redone(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=90", "--merge-every=30")
    wait_for_worker(process, brain, 1, 40)
    os.kill(independent_pids(process)[1], signal.SIGKILL)
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    (restarted,) = read_log(brain, "worker_restarted")
    assert (restarted["worker"], restarted["reason"]) == (1, "was killed by signal 9")
    assert restarted["step"] in (30, 60)
    assert [r["step"] for r in records_of(brain, 0)] == list(range(1, 91))
    steps = [r["step"] for r in records_of(brain, 1)]
    again = steps.index(restarted["step"] + 1, steps.index(restarted["step"] + 1) + 1)
    assert steps[again:] == list(range(restarted["step"] + 1, 91))
    assert steps[:again] == list(range(1, again + 1))
    redone = {r["step"]: r for r in records_of(brain, 1)[again:]}
    for before in records_of(brain, 1)[restarted["step"] : again]:  # the same steps on the same data, bit for bit
        assert (redone[before["step"]]["ce"], redone[before["step"]]["lr"]) == (before["ce"], before["lr"])
    assert [m["step"] for m in read_log(brain, "merge")] == [30, 60, 90]


@pytest.mark.slow
def test_workers_end_with_a_killed_supervisor_and_resume_goes_on_from_the_last_merge(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=80", "--merge-every=20")
    wait_for_worker(process, brain, 0, 50)
    pids = list(independent_pids(process).values())
    assert len(pids) == 2
    process.send_signal(signal.SIGKILL)
    process.communicate()
    until_gone(pids, 30)
    newest, _ = newest_valid(brain)
    assert newest is not None
    last = int(newest.name[5:])
    assert last in (40, 60)
    card = read_card(brain)
    assert card is not None
    assert card.trained_steps in (last - 20, last)
    train(tmp_path, "--resume")
    assert read_log(brain, "run_resumed")[0]["step"] == last
    for rank in range(2):
        steps = [r["step"] for r in records_of(brain, rank)]
        assert steps[-(80 - last) :] == list(range(last + 1, 81))
        assert set(steps) == set(range(1, 81))
    assert read_log(brain, "final")[0]["steps"] == 80
    assert not (brain / "merge").exists()


@pytest.mark.parametrize("how", ["stop_file", pytest.param("signal", marks=pytest.mark.slow)])
def test_a_stop_reaches_all_workers_and_what_they_learned_is_merged(tmp_path: Path, how: str) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=100000", "--merge-every=100000")
    wait_for_worker(process, brain, 1, 5)
    pids = list(independent_pids(process).values())
    if how == "signal":
        process.send_signal(signal.SIGTERM)
    else:
        (brain / "STOP").touch()
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    until_gone(pids, 0)
    (stopped,) = read_log(brain, "stopped")
    assert stopped["reason"] == how
    (merge,) = read_log(brain, "merge")
    last = [records_of(brain, rank)[-1]["step"] for rank in range(2)]
    assert merge["step"] == stopped["step"] == min(last)
    assert merge["weights"] == pytest.approx([step / sum(last) for step in last])
    assert list_checkpoints(brain)[0].name == f"step-{min(last)}"
    assert load_state(list_checkpoints(brain)[0])["worker_steps"] == last
    assert not (brain / "STOP").exists()


@pytest.mark.slow
def test_finish_now_anneals_every_worker_and_ends_regularly(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=400", "--merge-every=15")
    wait_for_worker(process, brain, 1, 20)
    (brain / "STOP").write_text("FINISH")
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, ""), out
    assert not read_log(brain, "stopped")
    (final,) = read_log(brain, "final")
    for rank in range(2):
        (anneal,) = records_of(brain, rank, "adaptive_lr_anneal")
        last = records_of(brain, rank)[-1]
        assert last["step"] == anneal["end"] < 200
        assert last["lr"] < 2e-4
        assert final["steps"] <= last["step"]


@pytest.mark.slow
def test_workers_that_die_again_and_again_end_the_run_with_one_sentence(tmp_path: Path) -> None:
    brain = tmp_path / "brain"
    process = start_training(tmp_path, *TWO, "--steps=100000", "--merge-every=100000", "--max-restarts=0")
    wait_for_worker(process, brain, 1, 3)
    pids = independent_pids(process)
    os.kill(pids[1], signal.SIGKILL)
    _, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 1
    assert "Worker 1 was killed by signal 9 and the 0 restarts of --max-restarts are used up" in err
    until_gone(list(pids.values()), 0)


@pytest.mark.slow
def test_profile_auto_searches_and_follows_the_loss_in_every_worker(tmp_path: Path) -> None:
    auto = ("--adaptive-lr-profile=auto", "--steps=300", "--merge-every=60", "--eval-every=60", "--eval-batches=16")
    train(tmp_path, "--parallel-independent", "--world-size=3", *auto)
    brain = tmp_path / "brain"
    found = [records_of(brain, rank, "adaptive_lr_climb") for rank in range(3)]
    assert all(len(one) == 1 and one[0]["lr"] > 1e-4 for one in found)
    paths = [tuple(r["lr"] for r in records_of(brain, rank)) for rank in range(3)]
    assert len(set(paths)) == 3
    assert all(path[-1] < max(path) / 20 for path in paths)  # annealed
    evals = [merge["eval_loss"] for merge in read_log(brain, "merge")]
    assert evals == sorted(evals, reverse=True)
    assert evals[-1] < evals[0] - 0.5
    assert not any(r["decision"].startswith("spike") for r in read_log(brain, "adaptive_lr_adjustment"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "give --world-size"),
        (["--world-size=0"], "--world-size is 0"),
        (["--world-size=2", "--ddp"], "exclude each other"),
        (["--world-size=2", "--merge-every=0"], "--merge-every is 0"),
        (["--world-size=2", "--device=mps"], "--device mps"),
    ],
    ids=["no-world-size", "zero", "ddp", "merge-every", "mps"],
)
def test_bad_flags_are_refused_with_one_sentence(tmp_path: Path, flags: list[str], sentence: str) -> None:
    done = run_aios(*train_args(tmp_path, "--parallel-independent", *flags))
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "brain").exists()


def test_too_little_data_for_so_many_workers_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("In the beginning God created the heaven and the earth. " * 40)
    done = run_aios(*train_args(tmp_path, "--parallel-independent", "--world-size=9", f"--dataset-file={text}"))
    assert done.returncode == 2
    assert "9 workers with --batch-size 4 draw 36 at a time" in done.stderr
    assert not (tmp_path / "brain" / "metrics.jsonl").exists()
