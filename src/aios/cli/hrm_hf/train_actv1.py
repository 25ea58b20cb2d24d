"""One training run, from its settled origin to a saved brain: `train_actv1` reads top to bottom."""

from __future__ import annotations

import platform
import secrets
from typing import Any

import torch
import transformers

import aios
from aios.cli.hrm_hf.console import RunConsole
from aios.cli.hrm_hf.lr_plan import plan_learning_rate, will_search
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_setup import Setup, build_run, prepare
from aios.cli.hrm_hf.session import Session
from aios.cli.hrm_hf.train_epoch import train_epoch
from aios.data.dataset import unigram_entropy
from aios.errors import RunError
from aios.runs.stop_request import StopRequest
from aios.runs.training_log import TrainingLog


def train_actv1(origin: Origin) -> None:
    """Train from `origin` up to its `--steps`, or until asked to stop; saves a brain either way.

    Raises:
        UserError: for input that cannot be trained on; nothing has been written then.
        RunError: when training diverges whatever is done about it; the last good state has been saved then.
    """
    transformers.utils.logging.disable_progress_bar()  # there is a progress line already
    config = origin.config
    console = RunConsole(config.steps)
    for sentence in origin.skipped:
        console.say(sentence)
    if origin.state is not None and origin.state["step"] >= config.steps:
        console.say(f"{config.brain_dir} is trained to step {origin.state['step']} already; raise --steps to go on.")
        return

    setup = prepare(origin, console.tokenizing)
    entropy = unigram_entropy(setup.data.train)
    with TrainingLog(config.log_path) as log, console, StopRequest(config.stop_path) as stop:

        def emit(record: dict[str, Any]) -> None:
            console.show(log.write(record))

        run_id = secrets.token_hex(6)
        emit(_start_record(origin, setup, run_id) | {"unigram_entropy": entropy})
        run = build_run(origin, setup, emit)
        session = Session(run, run_id, setup.tokenizer, setup.data)
        if will_search(config, origin.state):
            session.save()  # so that a run killed during the search can be resumed, too
        run.lr = plan_learning_rate(run, origin.state)
        try:
            stop_reason = train_epoch(run, session.save, stop.reason)
        except RunError:
            session.finish("trouble")
            raise
        session.finish(stop_reason)
        stop.honoured()
    console.summarize(session, entropy)


def _start_record(origin: Origin, setup: Setup, run_id: str) -> dict[str, Any]:
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
        "world_size": 1,
        "params": sum(p.numel() for p in setup.model.parameters()),
        "resumed_from": str(origin.weights) if resumed else None,
        "dataset": data.dataset_name,
        "train_tokens": data.train.stop - data.train.start,
        "eval_tokens": data.eval.stop - data.eval.start,
    }
