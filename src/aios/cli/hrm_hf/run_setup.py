"""What a run is made of before its first step: device, tokenizer, data, model, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from aios.auto_lr.anneal import Anneal
from aios.auto_lr.control import Emit, LearningRateControl
from aios.cli.hrm_hf.adaptive_lr import DEFAULT_LR
from aios.cli.hrm_hf.config import TrainingConfig
from aios.cli.hrm_hf.device_setup import Precision, choose_device, choose_precision
from aios.cli.hrm_hf.model_setup import new_model, saved_model
from aios.cli.hrm_hf.optimization import build_optimizer
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_state import restore_state
from aios.cli.hrm_hf.session import data_id
from aios.cli.hrm_hf.train_epoch import TrainingRun
from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import DataConfig, DataSplit, EvalBatches, TrainBatches, load_data
from aios.data.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Setup:
    """Everything a run needs that its settings only name."""

    device: torch.device
    """Where to compute."""
    precision: Precision
    """Number types."""
    tokenizer: PreTrainedTokenizerBase
    """Text to tokens."""
    data: DataSplit
    """What to train and evaluate on."""
    model: HRMForCausalLM
    """New or loaded, on the device."""


def prepare(origin: Origin, on_progress: Callable[[int, int], None]) -> Setup:
    """Load what `origin` names; `on_progress` hears (bytes done, bytes in all) while text is tokenised.

    Raises:
        UserError: for a device that is not there, or data, tokenizer or weights that cannot be used.
    """
    config = origin.config
    device = choose_device(config)
    precision = choose_precision(config, device)
    tokenizer = load_tokenizer(origin.tokenizer)
    data = load_data(_data_config(config), tokenizer, on_progress)
    model = new_model(config, tokenizer) if origin.weights is None else saved_model(origin.weights, config, tokenizer)
    model.to(device=device, dtype=precision.weights)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    return Setup(device, precision, tokenizer, data, model)


def build_run(origin: Origin, setup: Setup, emit: Emit) -> TrainingRun:
    """Put optimizer, data and a constant learning rate around the model, at the step the origin stands at."""
    config = origin.config
    lr = config.lr if config.lr is not None else DEFAULT_LR
    optimizer = build_optimizer(setup.model, lr, config.weight_decay)
    run = TrainingRun(
        config=config,
        device=setup.device,
        precision=setup.precision,
        model=setup.model,
        optimizer=optimizer,
        scaler=torch.amp.GradScaler(setup.device.type, enabled=setup.precision.loss_scaling),
        lr=LearningRateControl(optimizer, lr, 0, None, emit, anneal=Anneal.of_run(config.steps, 0.0)),
        train_batches=TrainBatches(setup.data.train, config.seed, config.batch_size),
        eval_batches=EvalBatches(setup.data.eval, config.batch_size, config.eval_batches),
        emit=emit,
    )
    if origin.state is not None:
        restore_state(run, origin.state, data_id(setup.data.train, config.seed))
    return run


def _data_config(config: TrainingConfig) -> DataConfig:
    return DataConfig(
        dataset_file=Path(config.dataset_file) if config.dataset_file is not None else None,
        eval_file=Path(config.eval_file) if config.eval_file is not None else None,
        seq_len=config.max_seq_len,
    )
