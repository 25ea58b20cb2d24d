"""The step loop: micro-batches, update, learning rate, log, evaluation, checkpoints, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aios.auto_lr.control import Emit, LearningRateControl
from aios.auto_lr.readback import Readback
from aios.auto_lr.update import clip_and_update, learning_rates
from aios.cli.hrm_hf.config import TrainingConfig
from aios.cli.hrm_hf.device_setup import Precision
from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import EvalBatches, TrainBatches
from aios.runs.stop_request import FINISH


class StepTag(NamedTuple):
    """What the host knows of a step when it launches it."""

    step: int
    """Global optimizer step, counted from 1."""
    lr: float | list[float]
    """LR of this step's update; one per param group where they differ."""
    skip_above: float
    """Gradient norm above which the update was to be skipped."""
    seconds: float
    """Wall time since the step before was launched, without evaluations and checkpoints."""


@dataclass
class TrainingRun:
    """A run in progress: all of its state that changes, in one place."""

    config: TrainingConfig
    """What was asked for."""
    device: torch.device
    """Where the model lives."""
    precision: Precision
    """Number types."""
    model: HRMForCausalLM
    """In training mode between evaluations."""
    optimizer: torch.optim.Optimizer
    """Fused AdamW."""
    scaler: torch.amp.GradScaler
    """Loss scaling; disabled unless the precision wants it."""
    lr: LearningRateControl
    """Warm-up and adaptive scheduler."""
    train_batches: TrainBatches
    """Training data by position."""
    eval_batches: EvalBatches
    """Evaluation data."""
    emit: Emit
    """Takes each log record."""
    step: int = 0
    """Optimizer steps done."""
    position: int = 0
    """Micro-batches drawn from `train_batches`."""
    end: int = 0
    """The step to train to: the config's, or sooner once asked to finish now."""
    last_loss: float = math.nan
    """Cross-entropy of the newest step read back."""
    last_eval: tuple[int, float] | None = None
    """(step, loss) of the newest evaluation."""
    readback: Readback[StepTag] = field(init=False)
    """Steps launched but not yet read."""

    def __post_init__(self) -> None:
        self.readback = Readback(self.device)
        self.end = self.end or self.config.steps


def train_epoch(run: TrainingRun, save: Callable[[], object], stop_reason: Callable[[], str | None]) -> str | None:
    """Train up to `run.end` optimizer steps; returns why it stopped early, None when it did not."""
    config = run.config
    run.model.train()
    run.end = min(run.end, run.lr.anneal.end)
    reason = None
    clock = time.perf_counter()
    while run.step < run.end and reason is None:
        take_step(run, clock)
        clock = time.perf_counter()
        report(run, run.readback.ready())
        reason = stop_reason() if run.step < run.end else None
        if reason == FINISH:
            run.end, reason = run.lr.finish_now(run.step), None
        if _is_due(config.eval_every, run.step):
            evaluate(run)
            clock = time.perf_counter()
        if _is_due(config.save_every, run.step) and run.step < run.end and reason is None:
            report(run, run.readback.flush())
            save()
            clock = time.perf_counter()
    report(run, run.readback.flush())
    return reason


def _is_due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def take_step(run: TrainingRun, clock: float) -> None:
    """One optimizer step, from its micro-batches to its update; `clock` is when the step before was launched."""
    run.lr.before_step(run.step + 1)
    losses, skip_above = accumulate_gradients(run), run.lr.skip_above
    grad_norm = clip_and_update(
        run.model, run.optimizer, run.scaler, losses[0], run.config.max_grad_norm, skip_above
    )  # fmt: skip
    run.step += 1
    numbers = torch.cat([losses, grad_norm.float().reshape(1)])
    tag = StepTag(run.step, learning_rates(run.optimizer), skip_above, time.perf_counter() - clock)
    run.readback.push(tag, numbers)


def accumulate_gradients(run: TrainingRun) -> Tensor:
    """Add up the gradients of all micro-batches; returns (loss, ce, used_segments, lb_loss), means on the device."""
    micro_batches = run.config.gradient_accumulation_steps
    means = torch.zeros(4, device=run.device)
    for _ in range(micro_batches):
        batch = to_device(run.train_batches.batch(run.position), run.device)
        run.position += 1
        with run.precision.autocast_context(run.device):
            out = run.model(input_ids=batch, labels=batch)
        run.scaler.scale(out.loss / micro_batches).backward()
        balance = out.lb_loss if out.lb_loss is not None else means.new_zeros(())
        means += torch.stack([out.loss, out.ce, out.used_segments, balance]).detach() / micro_batches
    return means


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """`batch` on the device; on CUDA copied in the background."""
    if device.type != "cuda":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


def report(run: TrainingRun, done: list[tuple[StepTag, list[float]]]) -> None:
    """Log the steps whose numbers have arrived and let the learning rate follow their loss."""
    config = run.config
    tokens = config.batch_size * config.gradient_accumulation_steps * config.max_seq_len
    for tag, (loss, ce, used_segments, lb_loss, grad_norm) in done:
        record: dict[str, Any] = {
            "event": "train",
            "step": tag.step,
            "loss": loss,
            "ce": ce,
            "lr": tag.lr,
            "grad_norm": grad_norm,
            "tokens_per_sec": tokens / tag.seconds,
            "step_time_s": tag.seconds,
            "used_segments": used_segments,
        }
        if config.use_moe:
            record["lb_loss"] = lb_loss
        run.emit(record)
        run.last_loss = ce
        # An overflow under loss scaling is the scaler's business: it skips the update and lowers its scale.
        overflow = run.scaler.is_enabled() and math.isfinite(ce) and not math.isfinite(grad_norm)
        run.lr.after_step(tag.step, ce, None if overflow else grad_norm, tag.skip_above)


def evaluate(run: TrainingRun) -> float:
    """Mean cross-entropy (nats per token) over the evaluation batches, logged; the model goes back to training."""
    report(run, run.readback.flush())
    run.model.eval()
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for rows in run.eval_batches:
            batch = to_device(rows, run.device)
            with run.precision.autocast_context(run.device):
                ce = run.model(input_ids=batch, labels=batch).ce
            targets = rows.shape[0] * (rows.shape[1] - 1)
            total, tokens = total + float(ce) * targets, tokens + targets
    run.model.train()
    loss = total / tokens
    run.last_eval = (run.step, loss)
    run.emit({"event": "eval", "step": run.step, "loss": loss, "ppl": perplexity(loss), "tokens": tokens})
    return loss


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large to say."""
    return math.exp(loss) if loss < 700 else math.inf
