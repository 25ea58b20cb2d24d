"""Independent workers: each trains weights of its own with a learning rate of its own, and now and then they merge.

Local SGD (Stich, ICLR 2019) with the weights of federated averaging (McMahan et al., AISTATS 2017). This process
supervises: it starts one process per worker, merges what they hand in, saves, and starts again whoever dies. Workers
meet only at merges, through files, so that the death of one holds up the others no longer than until it is back.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from aios.auto_lr.state_forms import read_checkpoint
from aios.cli.cores import divide_cores
from aios.cli.hrm_hf.launch import worker_count
from aios.cli.hrm_hf.lr_plan import still_comparable
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.parallel_state import (
    OF_ALL_WORKERS,
    TOKENIZER_FOLDER,
    Task,
    join_states,
    load_trained,
    split_state,
)
from aios.cli.hrm_hf.run_keeper import RunKeeper
from aios.cli.hrm_hf.run_setup import Setup, build_run, prepare
from aios.cli.hrm_hf.sitting import Sitting, begin, open_sitting
from aios.cli.hrm_hf.summary import summary_rows
from aios.cli.hrm_hf.train_epoch import evaluate
from aios.distributed.environment import PARENT
from aios.distributed.merge_files import Contribution, find_contribution, merge, round_folder
from aios.distributed.orders import ORDER_END, ORDER_FINISH, ORDER_MERGED, ORDER_STOP
from aios.distributed.supervisor import Crew, how_it_ended
from aios.engines.device import cuda_devices, device_kind
from aios.errors import RunError, UserError
from aios.runs.checkpoints import checkpoint_path, put_back
from aios.runs.lock import BrainLock
from aios.runs.stop_file import Request
from aios.runs.stop_request import StopRequest
from aios.runs.storage import writing
from aios.settings.config import TrainingConfig
from aios.terminal.workers_console import WorkersConsole

POLL_SECONDS = 0.05
"""How often the supervisor looks at its workers, at what they have handed in, and for requests to stop."""
MERGED_FILE = "merged.safetensors"


def train_independently(origin: Origin, lock: BrainLock) -> None:
    """Train from `origin` with `--world-size` independent workers up to `--steps`, or until asked to stop.

    `lock` is the brain's, held by this process.

    Raises:
        UserError: for input that cannot be trained on; no worker has been started then.
        RunError: when a worker died too often, or training diverged whatever was done about it; what was merged
            before is saved.
    """
    config = origin.config
    console = WorkersConsole(config.steps, config.log_path)
    if not begin(origin, console):
        return
    task = make_task(config)
    setup = prepare(origin, console.tokenizing)
    check_shares(setup, task)

    def show(_: dict[str, Any]) -> None:
        console.follow()  # the workers' records are in the log as well

    with open_sitting(origin, setup, lock, console, show, task.world_size, OF_ALL_WORKERS) as sitting:
        keeper = open_run(origin, setup, sitting, task, lock)
        with Supervision(task, keeper, sitting.stop, console) as supervision:
            trouble = train_rounds(supervision)
        left_over = sitting.stop.honoured()
        console.follow()
    if left_over is not None:
        console.say(left_over)
    if trouble is not None:
        raise RunError(trouble)
    console.summarize(summary_rows(keeper, setup.unigram_entropy), *keeper.continuation())


def make_task(config: TrainingConfig) -> Task:
    """How many workers, and the CUDA device of each.

    Raises:
        UserError: when nothing says how many there should be, or there are fewer devices.
    """
    if config.device == "mps":
        raise UserError("--parallel-independent needs a device for each worker, and --device mps is only one; use cpu.")
    count = worker_count(config)
    if device_kind(config) != "cuda":
        return Task(config, None, count)
    return Task(config, cuda_devices(config)[:count], count)


def check_shares(setup: Setup, task: Task) -> None:
    """Check that every worker has a batch of its own in each epoch.

    Raises:
        UserError: when there is too little data for so many workers.
    """
    windows, wanted = len(setup.data.train), task.world_size * task.config.batch_size
    if windows < wanted:
        raise UserError(
            f"The training data make {windows} sequences, but {task.world_size} workers with --batch-size "
            f"{task.config.batch_size} draw {wanted} at a time; give more text, fewer workers or smaller batches."
        )


@dataclass
class MergedRunKeeper(RunKeeper):
    """What the workers leave behind together: the merged weights with the training state of each."""

    states: Sequence[dict[str, Any]] = ()
    """The workers' checkpoint dicts, by rank."""

    def state(self) -> dict[str, Any]:
        """The checkpoint dict: shared entries, and lists by rank."""
        evaluations = self.run.auto.evaluations.state_dict()  # of what was merged: all workers' to go on with
        steered = [{**state["adaptive_lr"], "evaluations": evaluations} for state in self.states]
        states = [{**state, "adaptive_lr": own} for state, own in zip(self.states, steered, strict=True)]
        return join_states(states, self.run.config)

    def result(self) -> dict[str, Any]:
        """The `totals`, with the longest search of a worker."""
        steps = [int(state["adaptive_lr"]["search_steps"]) for state in self.states]
        return {**super().result(), "search_steps": max(steps, default=0)}


def open_run(origin: Origin, setup: Setup, sitting: Sitting, task: Task, lock: BrainLock) -> MergedRunKeeper:
    """The run as the supervisor keeps it, at its first checkpoint: the weights that all workers start from."""
    saved = origin.state
    own = split_state(saved, 0, task.world_size) if saved is not None else None
    run = build_run(replace(origin, state=own), setup, sitting.log_fn)
    keeper = MergedRunKeeper(run, sitting.run_id, setup.tokenizer, setup.data, sitting.log, lock)
    if saved is None or own is None:
        keeper.states = [keeper.own_state()] * task.world_size
        keeper.save()
        return keeper
    run.auto.step_count = origin.step
    learned = still_comparable(read_checkpoint(own), saved, run)
    run.auto.evaluations.load_state_dict(learned.get("evaluations"), finishing=False)
    put_back(origin.config.brain_dir)  # where the workers look for it
    return keeper


def train_rounds(supervision: Supervision) -> str | None:
    """Round after round until the run ends; returns why it could not go on, None when it could."""
    supervision.begin()
    while True:
        begun = time.time()
        contributions = supervision.await_contributions()
        reports = [c.report for c in contributions]
        over = supervision.stop_reason is not None or all(report.done for report in reports)
        supervision.take(contributions, begun)
        if over:
            supervision.end()
            return next((report.trouble for report in reports if report.trouble is not None), None)
        supervision.next_round()


class Supervision:
    """The supervisor's side of the rounds: a crew of workers, the round they are in, what has been merged."""

    def __init__(self, task: Task, keeper: MergedRunKeeper, stop: StopRequest, console: WorkersConsole) -> None:
        self.task = task
        self.keeper = keeper
        self.stop_reason: str | None = None
        """Why the run stops early, once it does."""
        self._stop, self._console = stop, console
        self._number = 0
        self._hung: dict[int, str] = {}
        self._merges = task.config.brain_dir / "merge"
        self._folder = self._merges / keeper.run_id
        self._crew = Crew(task.world_size, self._start_process)
        self._open = ExitStack()

    @property
    def _round(self) -> Path:
        return round_folder(self._folder, self._number)

    def begin(self) -> None:
        """Start the workers from the newest checkpoint."""
        self._round.mkdir(parents=True)
        self.task.write(self._folder)
        self.keeper.tokenizer.save_pretrained(self._folder / TOKENIZER_FOLDER)
        for rank in range(self.task.world_size):
            self._crew.start(rank)

    def await_contributions(self) -> list[Contribution]:
        """Wait until every worker has handed in, by rank; meanwhile pass on requests, replace the dead and the hung.

        Raises:
            RunError: when workers died more often than --max-restarts.
            UserError: when one refused its input.
        """
        while True:
            found = [find_contribution(self._round, rank) for rank in range(self.task.world_size)]
            contributions = [c for c in found if c is not None]
            if any(c.report.trouble is not None for c in contributions):
                self._order_stop("trouble")
            if len(contributions) == len(found):
                return contributions
            self._heed(self._stop.reason())
            handed_in = {c.report.rank for c in contributions}
            self._kill_hung(handed_in)
            self._replace_lost(handed_in)
            self._console.follow()
            time.sleep(POLL_SECONDS)

    def take(self, contributions: Sequence[Contribution], begun: float) -> None:
        """Merge, evaluate where the workers did, log it; `begun` is when the round was (unix seconds).

        Raises:
            RunError: when no worker has weights that can be merged.
        """
        run, reports, clock = self.keeper.run, [c.report for c in contributions], time.perf_counter()
        shares = self._merge(contributions)
        self.keeper.states = [c.load_state() for c in contributions]
        run.auto.step_count = min(report.step for report in reports)
        run.last_loss = sum(report.loss * share for report, share in zip(reports, shares, strict=True) if share)
        evals = [report.eval_loss for report in reports]
        evaluated = any(loss is not None for loss in evals)
        told = {
            "round": self._number,
            "weights": shares,
            "eval_loss": evaluate(run) if evaluated else None,
            "worker_eval_losses": evals,
            "worker_lrs": [report.lr for report in reports],
        }
        times = {"seconds": time.perf_counter() - clock, "round_seconds": time.time() - begun}
        run.log_fn({"event": "merge", "step": run.step, **told, **times})

    def _merge(self, contributions: Sequence[Contribution]) -> list[float]:
        """Give the model the weighted mean of the workers' weights, and leave it for them; returns their shares."""
        run, merged = self.keeper.run, self._round / MERGED_FILE
        try:
            weights, shares = merge(contributions)
        except ValueError as error:
            raise RunError(
                f"No worker has finite weights after step {run.step}: lower the learning rate, then go on from there "
                "with --resume."
            ) from error
        with writing(self._round, run.config.brain_dir, sum(tensor.nbytes for tensor in weights.values())):
            save_file(weights, merged)
        load_trained(run.model, merged)
        return shares

    def next_round(self) -> None:
        """Save what was merged, and only then let the workers go on from it."""
        self.keeper.save()
        merged, before = self._round / MERGED_FILE, self._number - 1
        self._number += 1
        self._round.mkdir()
        self._crew.tell_all(
            {"order": ORDER_MERGED, "weights": str(merged), "number": self._number, "step": self.keeper.run.step}
        )
        self._crew.begin_again()
        shutil.rmtree(round_folder(self._folder, before), ignore_errors=True)  # all are past it

    def end(self) -> None:
        """Save, write the closing records and let the workers go."""
        self.keeper.finish(self.stop_reason)
        self._crew.tell_all({"order": ORDER_END})
        self._crew.wait()

    def _heed(self, reason: str | None) -> None:
        """Pass on a request to stop or to finish soon."""
        if reason is Request.FINISH:
            self._crew.tell_all({"order": ORDER_FINISH}, standing=True)
        elif reason is not None:
            self._order_stop(reason)

    def _order_stop(self, reason: str) -> None:
        if self.stop_reason is None:
            self.stop_reason = reason
            self._crew.tell_all({"order": ORDER_STOP, "reason": reason}, standing=True)

    def _kill_hung(self, handed_in: set[int]) -> None:
        """Kill the workers that have made no step for --merge-timeout; a slow one that makes steps is waited for."""
        for rank, seconds in self._crew.hung(self.task.config.merge_timeout).items():
            if rank not in handed_in:
                self._hung[rank] = f"hung (no step for {seconds:.0f} s)"
                self._crew.kill(rank)

    def _replace_lost(self, handed_in: set[int]) -> None:
        """Start dead workers again from the last merge, except those whose work of this round is safe."""
        for rank, code in self._crew.lost().items():
            if rank in handed_in:
                continue
            if code == 2:
                raise UserError(f"Worker {rank} refused its input; the sentence above says what to change.")
            hung, most = self._hung.pop(rank, None), self.task.config.max_restarts
            how = hung or how_it_ended(code)
            if self._crew.restarts >= most:
                only_slow = ", with a larger --merge-timeout if it was only slow" if hung else ""
                raise RunError(
                    f"Worker {rank} {how} and the {most} restarts of --max-restarts are used up; everything up to step "
                    f"{self.keeper.run.step} is saved: continue with --resume{only_slow}."
                )
            self._crew.start(rank)
            run = self.keeper.run
            told = {"worker": rank, "reason": how, "restarts": self._crew.restarts}
            run.log_fn({"event": "worker_restarted", "step": run.step, **told})

    def _start_process(self, rank: int, heartbeat: int) -> subprocess.Popen[bytes]:
        run = self.keeper.run
        checkpoint = checkpoint_path(run.config.brain_dir, run.step)
        place = [str(self._folder), str(rank), str(checkpoint), str(self._number), str(heartbeat)]
        debug = ["--debug"] if "--debug" in sys.argv else []
        return subprocess.Popen(
            [sys.executable, "-m", "aios", "hrm-hf", "independent-worker", *place, *debug],
            stdin=subprocess.PIPE,
            pass_fds=(heartbeat,),
            env=worker_environment(self.task, rank),
            start_new_session=True,  # Ctrl-C is for the supervisor, which tells the workers
        )

    def __enter__(self) -> Supervision:
        self._clear()  # what a sitting that was killed had left
        self._open.callback(self._clear)
        self._open.enter_context(self._crew)
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.close()

    def _clear(self) -> None:
        shutil.rmtree(self._merges, ignore_errors=True)


def worker_environment(task: Task, rank: int) -> dict[str, str]:
    """The environment of a worker: its name, its own GPU, or its share of the cores."""
    place = {"RANK": str(rank), "WORLD_SIZE": str(task.world_size), "LOCAL_RANK": str(rank)}
    environment = {**os.environ, **place, PARENT: str(os.getpid())}
    if task.gpus is None:
        divide_cores(environment, task.world_size)
        return environment
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpu = task.gpus[rank]
    return {**environment, "CUDA_VISIBLE_DEVICES": visible.split(",")[gpu].strip() if visible else str(gpu)}
