"""Which engine a run's settings mean."""

from __future__ import annotations

import torch

from aios.core.hrm_models import HRMForCausalLM
from aios.distributed.workers import Workers
from aios.engines.compiled import compile_stacks
from aios.engines.deepspeed import DeepSpeedEngine
from aios.engines.device import Precision
from aios.engines.engine import DDPEngine, LocalEngine, TrainEngine
from aios.engines.weight_average import WeightAverage
from aios.settings.config import TrainingConfig
from aios.settings.deepspeed import deepspeed_settings


def choose_engine(
    config: TrainingConfig,
    model: HRMForCausalLM,
    optimizers: tuple[torch.optim.Optimizer, ...],
    scaler: torch.amp.GradScaler,
    precision: Precision,
    device: torch.device,
    workers: Workers,
) -> TrainEngine:
    """What makes and applies the gradients: DeepSpeed, DDP or this process alone."""
    if config.uses_deepspeed:
        settings = deepspeed_settings(config, workers.world_size)
        [optimizer] = optimizers
        assert isinstance(optimizer, torch.optim.AdamW), "the settings say so"
        return DeepSpeedEngine(model, optimizer, settings, precision, device, workers, config.deepspeed_config)
    kind = DDPEngine if config.ddp else LocalEngine
    segments = model.config.halt_max_steps
    per_segment = config.differentiates_segments(segments)
    if config.compile:
        passes = config.gradient_accumulation_steps * (segments if per_segment else 1)
        compile_stacks(model, device, passes)
    return kind(
        model,
        optimizers,
        scaler,
        device,
        config.max_grad_norm,
        precision=precision,
        per_segment=per_segment,
        updates_segments=config.update_per_segment,
        ema=WeightAverage(model, config.ema) if config.ema else None,
    )
