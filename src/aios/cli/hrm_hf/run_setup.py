"""What a run is made of before its first step: device, tokenizer, data, model, optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from aios.auto_lr.events import LogFn
from aios.auto_lr.stalled import StalledWatch
from aios.cli.hrm_hf.best_brain import go_back
from aios.cli.hrm_hf.model_setup import new_model, saved_model
from aios.cli.hrm_hf.optimization import build_optimizers
from aios.cli.hrm_hf.origin import Origin
from aios.cli.hrm_hf.run_state import restore_average, restore_state
from aios.cli.hrm_hf.samples import Sampler
from aios.cli.hrm_hf.train_epoch import TrainingRun
from aios.core.hrm_models import HRMForCausalLM, read_config
from aios.data.dataset import DataConfig, DataSplit, EvalBatches, TrainBatches, data_id, load_data, unigram_entropy
from aios.data.tokenizer import load_tokenizer
from aios.distributed.environment import WorkerPlace
from aios.distributed.workers import Workers
from aios.engines.choice import choose_engine
from aios.engines.deepspeed import deepspeed_precision
from aios.engines.device import Precision, choose_device, choose_precision, device_memory
from aios.runs.checkpoints import check_state
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import optimizer_settings
from aios.settings.fits import check_fits_device

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
    eval_batches: EvalBatches
    """What each evaluation is of."""
    model: HRMForCausalLM
    """New or loaded, on the device."""
    workers: Workers = field(default_factory=Workers)
    """Who trains it together."""

    @cached_property
    def unigram_entropy(self) -> float:
        """Of the training data, nats per token; reads all of them when it is first asked for."""
        return unigram_entropy(self.data.train)


def prepare(origin: Origin, on_progress: Callable[[int, int], None], workers: Workers | None = None) -> Setup:
    """Load what `origin` names; `on_progress` hears (bytes done, bytes in all) while text is tokenised.

    Every worker of `workers` (None: this process is alone) calls it; the text is tokenised once per machine.

    Raises:
        UserError: for a device that is not there or too small, or data, tokenizer or weights that cannot be used.
    """
    transformers.utils.logging.disable_progress_bar()  # there is a progress line already
    config, workers = origin.config, workers or Workers()
    device = choose_device(config, workers.place.local_rank)
    precision = choose_precision(config, device)
    if config.uses_deepspeed:
        precision = deepspeed_precision(precision)
    weights = origin.weights
    hrm_config = read_config(weights) if weights is not None else None  # refused before text is tokenised
    tokenizer = load_tokenizer(origin.tokenizer)
    check_fits_device(config, len(tokenizer), device.type, device_memory(device))
    with workers.first_of_machine_first():
        data = load_data(data_config(config), tokenizer, on_progress)
    if weights is None or hrm_config is None:
        model = new_model(config, tokenizer)
    else:
        model = saved_model(weights, hrm_config, config, tokenizer)
    model.to(device=device, dtype=precision.weights)
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable()
    eval_batches = EvalBatches(data.eval, config.batch_size, config.eval_batches)
    return Setup(device, precision, tokenizer, data, eval_batches, model, workers)


def build_run(
    origin: Origin,
    setup: Setup,
    log_fn: LogFn,
    share: WorkerPlace | None = None,
    beat: Callable[[], None] = lambda: None,
    watches: bool = False,
) -> TrainingRun:
    """Put optimizer and data around the model, where the origin stands; `begin_learning_rate` comes next.

    `share` says which part of the data to draw; None: that of `setup.workers`. `beat`: see `TrainingRun`. Whoever
    `watches` says where nothing is learned; of several workers one does.
    """
    config, workers = origin.config, setup.workers
    optimizers = _optimizers(setup.model, config)
    scaler = torch.amp.GradScaler(setup.device.type, enabled=setup.precision.loss_scaling)
    share = share or workers.place
    engine = choose_engine(config, setup.model, optimizers, scaler, setup.precision, setup.device, workers)
    samples = share.rank == 0 or engine.in_step
    run = TrainingRun(
        config=config,
        device=setup.device,
        precision=setup.precision,
        model=setup.model,
        optimizers=optimizers,
        scaler=scaler,
        engine=engine,
        train_batches=TrainBatches(setup.data.train, config.seed, config.batch_size, share.rank, share.world_size),
        eval_batches=setup.eval_batches,
        log_fn=log_fn,
        workers=workers,
        beat=beat,
        go_back=go_back,
        sampler=Sampler(setup.tokenizer, setup.data.eval, setup.precision, config.seed) if samples else None,
        stalled=StalledWatch(setup.unigram_entropy, config.steps) if watches else None,
    )
    if origin.state is not None and origin.weights is not None:
        _restore(run, origin.state, origin.weights, data_id(setup.data.train, config.seed))
    return run


def _optimizers(model: HRMForCausalLM, config: TrainingConfig) -> tuple[torch.optim.Optimizer, ...]:
    """Those that `--optimizer` means, with what a file for DeepSpeed asks of them."""
    asked = optimizer_settings(config)
    weight_decay = asked.pop("weight_decay", config.weight_decay)
    optimizers = build_optimizers(model, config.start_lr, weight_decay, config.optimizer)
    for group in optimizers[-1].param_groups:
        group.update({name: asked[name] for name in ("betas", "eps") if name in asked})
    return optimizers


def _restore(run: TrainingRun, state: dict[str, Any], checkpoint: Path, data: str) -> None:
    """Put `run` back to where the `checkpoint` of `state` was saved, on the `data` it names; DeepSpeed's files add to
    `state`."""
    restore_average(run, checkpoint)
    restore_state(run, state, data)
    if run.engine.writes_parts:
        state.update(run.engine.load(checkpoint))
        check_state(state, checkpoint)


def data_config(config: TrainingConfig) -> DataConfig:
    """The part of the settings that says what to train and evaluate on."""
    return DataConfig(
        dataset_file=Path(config.dataset_file) if config.dataset_file is not None else None,
        eval_file=Path(config.eval_file) if config.eval_file is not None else None,
        encoding=config.text_encoding,
        seq_len=config.max_seq_len,
    )
