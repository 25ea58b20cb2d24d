"""One training run, from its settled origin to a saved brain: `train_actv1` reads top to bottom."""

from __future__ import annotations

from datetime import timedelta

from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_keeper import RunKeeper
from aios.cli.hrm_hf.run_setup import build_run, prepare
from aios.cli.hrm_hf.sitting import begin, open_sitting
from aios.cli.hrm_hf.summary import summary_rows
from aios.cli.hrm_hf.train_epoch import train_epoch
from aios.distributed.environment import WorkerPlace, place_of
from aios.distributed.workers import Workers, joined
from aios.engines.device import choose_device
from aios.errors import RunError, UserError
from aios.runs.lock import BrainLock
from aios.runs.storage import StorageError
from aios.settings.config import TrainingConfig
from aios.terminal.console import RunConsole


def train_actv1(origin: Origin, lock: BrainLock) -> None:
    """Train from `origin` up to its `--steps`, or until asked to stop; saves a brain, whose `lock` is held, either way.

    Started by a launcher, this process is one of several workers that train one model together.

    Raises:
        UserError: for input that cannot be trained on; nothing has been written then.
        RunError: when training diverges whatever is done about it, and the last good state has been saved; or when
            the disk takes no more.
    """
    place = place_of()
    check_place(origin.config, place)
    device = choose_device(origin.config, place.local_rank) if place is not None else None
    with joined(place, device) as workers:
        _train(origin, workers, lock)


def _train(origin: Origin, workers: Workers, lock: BrainLock) -> None:
    config = origin.config
    console = RunConsole(config.steps, quiet=not workers.is_main)
    if not begin(origin, console, workers.is_main):
        return
    setup = prepare(origin, console.tokenizing, workers)
    with open_sitting(origin, setup, lock, console, console.show, workers.world_size) as sitting:
        run = build_run(origin, setup, sitting.log_fn, watches=workers.is_main)
        keeper = RunKeeper(run, sitting.run_id, setup.tokenizer, setup.data, sitting.log, lock)
        try:
            with workers.waiting_at_most(timedelta(seconds=config.merge_timeout)):
                begin_learning_rate(run, origin.state, keeper.save)
                console.ends_at(run.auto.end)  # a run that was finishing when it was stopped goes on to that end
                stop_reason = train_epoch(run, keeper.save, sitting.stop.reason)
        except StorageError:
            raise  # a save would fail as well
        except RunError:
            keeper.finish("trouble")
            raise
        keeper.finish(stop_reason)
        left_over = sitting.stop.honoured()
    if workers.is_main:
        console.summarize(summary_rows(keeper, setup.unigram_entropy), *keeper.continuation())
    if left_over is not None:
        console.say(left_over)


def check_place(config: TrainingConfig, place: WorkerPlace | None) -> None:
    """Check that a launcher started as many workers as the flags say.

    Raises:
        UserError: when it did not.
    """
    if place is not None and config.world_size not in (None, place.world_size):
        raise UserError(
            f"--world-size is {config.world_size}, but torchrun started {place.world_size} workers; leave it out."
        )
