"""One training run, from its settled origin to a saved brain: `train_actv1` reads top to bottom."""

from __future__ import annotations

import platform
import secrets
from pathlib import Path
from typing import Any

import torch
import transformers

import aios
from aios.cli.hrm_hf.adaptive_lr import DEFAULT_LR, AdaptiveLRScheduler, preflight_moe_lr
from aios.cli.hrm_hf.adaptive_lr_file import build_config
from aios.cli.hrm_hf.config import TrainingConfig
from aios.cli.hrm_hf.console import RunConsole
from aios.cli.hrm_hf.device_setup import Precision, choose_device, choose_precision
from aios.cli.hrm_hf.lr_control import Emit, LearningRateControl
from aios.cli.hrm_hf.model_setup import new_model, saved_model
from aios.cli.hrm_hf.optimization import build_optimizer
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.preflight import warmup_length
from aios.cli.hrm_hf.run_state import restore_state
from aios.cli.hrm_hf.session import Session, data_id
from aios.cli.hrm_hf.train_epoch import TrainingRun, train_epoch
from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import DataConfig, DataSplit, EvalBatches, TrainBatches, load_data, unigram_entropy
from aios.data.tokenizer import load_tokenizer
from aios.runs.stop_request import StopRequest
from aios.runs.training_log import TrainingLog


def train_actv1(origin: Origin) -> None:
    """Train from `origin` up to its `--steps`, or until asked to stop; saves a brain either way.

    Raises:
        UserError: for input that cannot be trained on; nothing has been written then.
    """
    transformers.utils.logging.disable_progress_bar()  # there is a progress line already
    config = origin.config
    console = RunConsole(config.steps)
    for sentence in origin.skipped:
        console.say(sentence)
    if origin.state is not None and origin.state["step"] >= config.steps:
        console.say(f"{config.brain_dir} is trained to step {origin.state['step']} already; raise --steps to go on.")
        return

    device = choose_device(config)
    precision = choose_precision(config, device)
    tokenizer = load_tokenizer(origin.tokenizer)
    data = load_data(_data_config(config), tokenizer, console.tokenizing)
    model = new_model(config, tokenizer) if origin.weights is None else saved_model(origin.weights, config, tokenizer)
    model.to(device=device, dtype=precision.weights)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    entropy = unigram_entropy(data.train)

    with TrainingLog(config.log_path) as log, console, StopRequest(config.stop_path) as stop:

        def emit(record: dict[str, Any]) -> None:
            console.show(log.write(record))

        run_id = secrets.token_hex(6)
        emit(_start_record(origin, model, data, device, run_id) | {"unigram_entropy": entropy})
        run = build_run(origin, model, data, device, precision, emit)
        session = Session(run, run_id, tokenizer, data)
        stop_reason = train_epoch(run, session.save, stop.reason)
        session.finish(stop_reason)
        stop.honoured()
    console.summarize(session, entropy)


def build_run(
    origin: Origin,
    model: HRMForCausalLM,
    data: DataSplit,
    device: torch.device,
    precision: Precision,
    emit: Emit,
) -> TrainingRun:
    """Put optimizer, learning rate and batches around the model, at the step the origin stands at."""
    config, state = origin.config, origin.state
    step = int(state["step"]) if state is not None else 0
    warmup_steps = _warmup_steps(config, state)
    base_lr = _base_lr(config, emit if state is None else None)
    settings = build_config(config.adaptive_lr_config, base_lr, config.steps, config.use_moe)
    if config.auto_adjust_lr:
        base_lr = settings.initial_lr
    optimizer = build_optimizer(model, base_lr, config.weight_decay)
    scheduler = None
    if config.auto_adjust_lr:
        scheduler = AdaptiveLRScheduler(
            optimizer, settings, config.use_moe, emit, start_step=step, warmup_steps=warmup_steps
        )
        scheduler.start_step = max(step, warmup_steps)  # it starts to count when the warm-up hands over
    run = TrainingRun(
        config=config,
        device=device,
        precision=precision,
        model=model,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(device.type, enabled=precision.loss_scaling),
        lr=LearningRateControl(optimizer, base_lr, warmup_steps, scheduler, emit),
        train_batches=TrainBatches(data.train, config.seed, config.batch_size),
        eval_batches=EvalBatches(data.eval, config.batch_size, config.eval_batches),
        emit=emit,
    )
    if state is not None:
        restore_state(run, state, data_id(data.train, config.seed))
    return run


def _data_config(config: TrainingConfig) -> DataConfig:
    return DataConfig(
        dataset_file=Path(config.dataset_file) if config.dataset_file is not None else None,
        eval_file=Path(config.eval_file) if config.eval_file is not None else None,
        seq_len=config.max_seq_len,
    )


def _base_lr(config: TrainingConfig, emit: Emit | None) -> float:
    """The LR to warm up to; for a mixture of experts on automatic moved, once, into the range that trains."""
    asked = config.lr if config.lr is not None else DEFAULT_LR
    if not (config.use_moe and config.auto_adjust_lr):
        return asked
    lr, reason = preflight_moe_lr(asked)
    if reason is not None and emit is not None:
        rates = {"original_lr": asked, "adjusted_lr": lr}
        emit({"event": "moe_lr_adjustment", "step": 0, **rates, "reason": reason})
    return lr


def _warmup_steps(config: TrainingConfig, state: dict[str, Any] | None) -> int:
    """A warm-up that is over stays over; one in progress keeps its length unless a new one is given."""
    if state is None:
        return warmup_length(config)
    saved = int(state["warmup_steps"])
    if state["step"] >= saved or config.warmup_steps is None:
        return saved
    return config.warmup_steps


def _start_record(
    origin: Origin, model: HRMForCausalLM, data: DataSplit, device: torch.device, run_id: str
) -> dict[str, Any]:
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
        "params": sum(p.numel() for p in model.parameters()),
        "resumed_from": str(origin.weights) if resumed else None,
        "dataset": data.dataset_name,
        "train_tokens": data.train.stop - data.train.start,
        "eval_tokens": data.eval.stop - data.eval.start,
    }
