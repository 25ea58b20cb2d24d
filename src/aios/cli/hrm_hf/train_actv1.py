"""One training run, from its settled origin to a saved brain: `train_actv1` reads top to bottom."""

from __future__ import annotations

import dataclasses
import math
import platform
import secrets
from datetime import timedelta
from typing import Any

import torch
import transformers

import aios
from aios.auto_lr.stalled import StalledWatch
from aios.cli.hrm_hf.brain_files import close_ended_run, has_ended, open_log, republish
from aios.cli.hrm_hf.lr_plan import begin_learning_rate
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import Setup, build_run, prepare
from aios.cli.hrm_hf.session import Session
from aios.cli.hrm_hf.summary import summary_rows
from aios.cli.hrm_hf.train_epoch import train_epoch
from aios.data.dataset import unigram_entropy
from aios.distributed.environment import WorkerPlace, place_of
from aios.distributed.workers import Workers, joined
from aios.engines.device import choose_device
from aios.errors import RunError, UserError
from aios.runs.stop_request import StopRequest
from aios.runs.storage import StorageError, writing
from aios.runs.tensorboard_log import TensorBoardLog
from aios.settings.config import TrainingConfig
from aios.settings.fits import size_of_run
from aios.settings.forecast import Forecast
from aios.terminal.console import RunConsole


def train_actv1(origin: Origin) -> None:
    """Train from `origin` up to its `--steps`, or until asked to stop; saves a brain either way.

    Started by a launcher, this process is one of several workers that train one model together.

    Raises:
        UserError: for input that cannot be trained on; nothing has been written then.
        RunError: when training diverges whatever is done about it, and the last good state has been saved; or when
            the disk takes no more.
    """
    transformers.utils.logging.disable_progress_bar()  # there is a progress line already
    place = place_of()
    check_place(origin.config, place)
    device = choose_device(origin.config, place.local_rank) if place is not None else None
    with joined(place, device) as workers:
        _train(origin, workers)


def _train(origin: Origin, workers: Workers) -> None:
    config = origin.config
    console = RunConsole(config.steps, quiet=not workers.is_main)
    for sentence in origin.remarks:
        console.say(sentence)
    if workers.is_main:
        republish(origin, console.say)
    if has_ended(origin):
        if workers.is_main:
            close_ended_run(origin, console.say)
        return

    setup = prepare(origin, console.tokenizing, workers)
    for sentence in foretold(origin, setup, workers.world_size):
        console.say(sentence)
    stop = StopRequest(config.stop_request if workers.is_main else None, launcher=workers.place.launcher)
    first_step = origin.state["step"] if origin.state is not None else 0
    board = TensorBoardLog(config.tensorboard if workers.is_main else None, first_step)
    with open_log(config, writes=workers.is_main) as log, board, console, stop:

        def log_fn(record: dict[str, Any]) -> None:
            with writing(config.log_path.parent, config.brain_dir):
                record = log.write(record)
                board.write(record)
            console.show(record)

        run_id = secrets.token_hex(6)
        entropy = unigram_entropy(setup.data.train) if workers.is_main else math.nan
        log_fn(start_record(origin, setup, run_id) | {"unigram_entropy": entropy})
        run = build_run(origin, setup, log_fn)
        run.stalled = StalledWatch(entropy, config.steps) if workers.is_main else None
        session = Session(run, run_id, setup.tokenizer, setup.data, log)
        try:
            with workers.waiting_at_most(timedelta(seconds=config.merge_timeout)):
                begin_learning_rate(run, origin.state, session.save)
                console.ends_at(run.auto.end)  # a run that was finishing when it was stopped goes on to that end
                stop_reason = train_epoch(run, session.save, stop.reason)
        except StorageError:
            raise  # a save would fail as well
        except RunError:
            session.finish("trouble")
            raise
        session.finish(stop_reason)
        left_over = stop.honoured()
    if workers.is_main:
        console.summarize(summary_rows(session, entropy), *session.continuation())
    if left_over is not None:
        console.say(left_over)


def foretold(origin: Origin, setup: Setup, workers: int) -> list[str]:
    """What a new run of so many workers will be, and what is doubtful about it; nothing of one from other weights."""
    if origin.weights is not None:
        return []
    tokens = setup.data.train.stop - setup.data.train.start
    config = dataclasses.replace(origin.config, world_size=workers)  # which the devices may say instead of a flag
    size = size_of_run(config, len(setup.tokenizer), setup.device.type)
    known = Forecast(config, tokens, counted=True, size=size)
    return [*known.facts, *known.doubts]


def check_place(config: TrainingConfig, place: WorkerPlace | None) -> None:
    """Check that a launcher started as many workers as the flags say.

    Raises:
        UserError: when it did not.
    """
    if place is not None and config.world_size not in (None, place.world_size):
        raise UserError(
            f"--world-size is {config.world_size}, but torchrun started {place.world_size} workers; leave it out."
        )


def start_record(origin: Origin, setup: Setup, run_id: str) -> dict[str, Any]:
    """The first record of a sitting: what is trained, with what, and where it goes on from."""
    device, data = setup.device, setup.data
    resumed = origin.state is not None
    return {
        "event": "run_resumed" if resumed else "run_start",
        "step": origin.state["step"] if origin.state is not None else 0,
        "run_id": run_id,
        "config": origin.config.to_dict(),
        "versions": {
            "aios": aios.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "world_size": setup.workers.world_size,
        "params": sum(p.numel() for p in setup.model.parameters()),
        "resumed_from": str(origin.weights) if resumed else None,
        "dataset": data.dataset_name,
        "train_tokens": data.train.stop - data.train.start,
        "eval_tokens": data.eval.stop - data.eval.start,
    }
