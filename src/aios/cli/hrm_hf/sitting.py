"""A sitting, whichever way the run trains: what comes before its first step, and what is open as long as it lasts."""

from __future__ import annotations

import dataclasses
import math
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import transformers

import aios
from aios.auto_lr.events import LogFn
from aios.cli.hrm_hf.brain_files import close_ended_run, has_ended, republish
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_log import NO_TAGS, open_log
from aios.cli.hrm_hf.run_setup import Setup
from aios.runs.lock import BrainLock
from aios.runs.stop_request import StopRequest
from aios.runs.training_log import TrainingLog
from aios.settings.fits import size_of_run
from aios.settings.forecast import Forecast
from aios.terminal.console import RunConsole


@dataclass(frozen=True)
class Sitting:
    """What is open while a run trains."""

    run_id: str
    """Names it in log and brain."""
    log: TrainingLog
    """Where its records go."""
    log_fn: LogFn
    """Writes one and shows it."""
    stop: StopRequest
    """Whether it was asked to stop."""


def begin(origin: Origin, console: RunConsole, is_main: bool = True) -> bool:
    """Say what `origin` remarks and have the brain's folder show what it resumes; returns whether there is more to do.

    There is not where the run had ended: then its log is closed. Of several workers the main one writes.

    Raises:
        StorageError: when the disk takes no more.
    """
    for sentence in origin.remarks:
        console.say(sentence)
    ended = has_ended(origin)
    if is_main:
        republish(origin, console.say)
        if ended:
            close_ended_run(origin, console.say)
    return not ended


@contextmanager
def open_sitting(
    origin: Origin,
    setup: Setup,
    lock: BrainLock,
    console: RunConsole,
    shown: Callable[[dict[str, Any]], object],
    world_size: int,
    tags: Mapping[str, Any] = NO_TAGS,
) -> Iterator[Sitting]:
    """Foretell the run of `world_size` workers, open its log and say there that it begins.

    `lock` is the brain's, held by this process. `tags` go behind the keys of every record; each is `shown` as it was
    written.

    Raises:
        StorageError: when the disk takes no more.
    """
    config, workers = origin.config, setup.workers
    for sentence in _foretold(origin, setup, world_size):
        console.say(sentence)
    stop = StopRequest(config.watched_stop_file if workers.is_main else None, launcher=workers.place.launcher)
    with open_log(config, origin.step, writes=workers.is_main, lock=lock) as log, console, stop:
        log_fn, run_id = log.log_fn(tags, shown), secrets.token_hex(6)
        log_fn(_start_record(origin, setup, run_id, world_size))
        yield Sitting(run_id, log.file, log_fn, stop)


def _foretold(origin: Origin, setup: Setup, world_size: int) -> list[str]:
    """What a new run will be, and what is doubtful about it; nothing of one from other weights."""
    if origin.weights is not None:
        return []
    tokens = setup.data.train.stop - setup.data.train.start
    config = dataclasses.replace(origin.config, world_size=world_size)  # which the devices may say instead of a flag
    size = size_of_run(config, len(setup.tokenizer), setup.device.type)
    known = Forecast(config, tokens, counted=True, size=size)
    return [*known.facts, *known.doubts]


def _start_record(origin: Origin, setup: Setup, run_id: str, world_size: int) -> dict[str, Any]:
    """The first record of a sitting: what is trained, with what, and where it goes on from."""
    device, data = setup.device, setup.data
    resumed = origin.state is not None
    return {
        "event": "run_resumed" if resumed else "run_start",
        "step": origin.step,
        "run_id": run_id,
        "config": origin.config.to_dict(),
        "versions": {
            "aios": aios.__version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "loss_scaling": setup.precision.loss_scaling,
        "world_size": world_size,
        "params": sum(p.numel() for p in setup.model.parameters()),
        "resumed_from": str(origin.weights) if resumed else None,
        "dataset": data.dataset_name,
        "train_tokens": data.train.stop - data.train.start,
        "eval_id": setup.eval_batches.id,
        "eval_tokens": data.eval.stop - data.eval.start,
        "unigram_entropy": setup.unigram_entropy if setup.workers.is_main else math.nan,
    }
