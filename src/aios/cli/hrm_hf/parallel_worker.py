"""One of several independent workers: trains its share of the data round by round and hands in what it has learned.

Between two merges it is an ordinary run: its own optimizer, learning rate, search, ladder and anneal.
"""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from aios.auto_lr.events import LogFn
from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.parallel_state import TOKENIZER_FOLDER, Task, load_trained, save_trained, split_state
from aios.cli.hrm_hf.run_log import open_log
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.cli.hrm_hf.run_state import collect_state
from aios.cli.hrm_hf.train_epoch import TrainingRun, evaluate, train_epoch
from aios.data.dataset import data_id
from aios.distributed.environment import WorkerPlace
from aios.distributed.heartbeat import Heartbeat
from aios.distributed.merge_files import Report, hand_in, round_folder
from aios.distributed.orders import Orders
from aios.errors import RunError
from aios.file_names import WEIGHTS_FILE
from aios.runs.checkpoints import load_state
from aios.runs.storage import StorageError, writing


def work(folder: Path, rank: int, checkpoint: Path, number: int, heartbeat: int) -> None:
    """Train as worker `rank` from `checkpoint`, beginning with round `number`, until told to end.

    `folder` is the sitting's. Orders come through standard input; when it closes, the supervisor is gone and the
    process ends. Signs that training goes on leave through the file descriptor `heartbeat`.
    """
    orders = Orders()
    orders.listen(sys.stdin.fileno())
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the supervisor says when to stop
    task = Task.read(folder)
    saved = load_state(checkpoint)
    with open_log(task.config, saved["step"], repair=False, rank=rank) as log:
        worker = start_worker(task, rank, folder, checkpoint, saved, log.log_fn(task.tags(rank)), Heartbeat(heartbeat))
        round_end: int | None = task.next_merge(saved["step"])
        while round_end is not None:
            trouble = worker.train_until(round_end, orders)
            worker.hand_in(round_folder(folder, number), trouble)
            following = orders.next_round()
            round_end = None
            if following is not None:
                worker.take_merged(following.weights)
                number, round_end = following.number, task.next_merge(following.step)
        worker.run.auto.log_summary()


@dataclasses.dataclass
class Worker:
    """A run whose weights are replaced by merged ones now and then."""

    run: TrainingRun
    """The run in progress."""
    rank: int
    """Its number."""
    data_id: str
    """Names the training data and their order."""
    round_start: int = 0
    """Micro-batches drawn when the round began."""

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return self.run.step >= self.run.auto.end

    def train_until(self, step: int, orders: Orders) -> str | None:
        """Train up to optimizer step `step`, or until ordered to stop; returns why it cannot go on, None when it can.

        After trouble that nothing helps against, the weights are the last good ones.
        """
        run = self.run
        run.auto.pause_at(step)
        self.round_start = run.position

        def stop_reason() -> str | None:
            if orders.finish and run.auto.begun and not run.auto.finishing:
                run.auto.finish_now()
            return orders.stop

        try:
            train_epoch(run, _save_nothing, stop_reason)
        except StorageError:
            raise  # handing in would fail as well
        except RunError as error:
            return str(error)
        if self.done and orders.stop is None and (run.last_eval is None or run.last_eval[0] != run.step):
            evaluate(run, saved=True)
        return None

    def hand_in(self, folder: Path, trouble: str | None) -> None:
        """Put weights, state and a report into the round's folder; the merge is certain to follow."""
        run = self.run
        run.auto.settle()  # a climb that ended later would take the merged weights back
        run.auto.forget_reference()
        report = Report(
            rank=self.rank,
            step=run.step,
            samples=(run.position - self.round_start) * run.config.batch_size,
            done=self.done,
            loss=run.last_loss,
            eval_loss=run.last_eval[1] if run.last_eval is not None and run.last_eval[0] == run.step else None,
            trouble=trouble,
            lr=float(run.optimizers[0].param_groups[0]["lr"]),
        )
        state = collect_state(run, self.data_id)
        with writing(folder, run.config.brain_dir):
            hand_in(folder, report, state, lambda partial: save_trained(run.model, partial / WEIGHTS_FILE))
        if run.device.type == "cuda":
            torch.cuda.empty_cache()  # room for the supervisor to evaluate the merged model

    def take_merged(self, weights: Path) -> None:
        """Go on from the merged weights; a rewind never goes back behind them."""
        load_trained(self.run.model, weights)
        self.run.auto.keep_snapshot(at_any_rate=True)


def start_worker(
    task: Task,
    rank: int,
    folder: Path,
    checkpoint: Path,
    saved: dict[str, Any],
    log_fn: LogFn,
    heartbeat: Heartbeat,
) -> Worker:
    """Build the run of worker `rank` where `checkpoint` left it; its learning rate is planned, or searched, here."""
    # The supervisor saves, heeds evaluations (of merged weights), looks after the devices: each worker sees its own.
    config = dataclasses.replace(task.config, save_every=0, cuda_ids=None, resume=True, on_overfit="ignore")
    own = split_state(saved, rank, task.world_size)
    origin = Origin(config, checkpoint, str(folder / TOKENIZER_FOLDER), own)
    setup = prepare(origin, lambda done, total: None)
    run = build_run(origin, setup, log_fn, WorkerPlace(rank, task.world_size), heartbeat.beat, watches=rank == 0)
    begin_learning_rate(run, own)
    return Worker(run, rank, data_id(setup.data.train, config.seed))


def _save_nothing() -> None:
    """The supervisor saves, at merges."""
