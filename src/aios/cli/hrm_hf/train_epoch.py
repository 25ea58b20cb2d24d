"""The step loop: micro-batches, update, learning rate, log, evaluation, checkpoints, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aios.auto_lr.control import Emit, LearningRateControl
from aios.auto_lr.loop.readback import Readback
from aios.auto_lr.loop.trial import train_and_restore
from aios.auto_lr.loop.update import learning_rates, set_learning_rate
from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import EvalBatches, TrainBatches
from aios.distributed.workers import Workers
from aios.engines.device import Precision
from aios.engines.engine import MODEL_NUMBERS, Engine
from aios.runs.stop_file import FINISH
from aios.settings.config import TrainingConfig

ASKED = ("stop", "finish")
"""What workers can ask each other for; the numbers of a step say how many of them did, as a mean."""


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
    engine: Engine
    """Makes and applies gradients, alone or with the other workers."""
    lr: LearningRateControl
    """Warm-up and adaptive scheduler."""
    train_batches: TrainBatches
    """Training data by position."""
    eval_batches: EvalBatches
    """Evaluation data."""
    emit: Emit
    """Takes each log record."""
    workers: Workers = field(default_factory=Workers)
    """Who trains this model together."""
    beat: Callable[[], None] = lambda: None
    """Called after every batch: tells whoever watches that the run goes on."""
    step: int = 0
    """Optimizer steps done."""
    position: int = 0
    """Micro-batches drawn from `train_batches`."""
    end: int = 0
    """The step to train to: the config's, or sooner once asked to finish now."""
    stop_reason: str | None = None
    """Why to stop early, once all workers know."""
    last_loss: float = math.nan
    """Cross-entropy of the newest step read back."""
    last_eval: tuple[int, float] | None = None
    """(step, loss) of the newest evaluation."""
    readback: Readback[StepTag] = field(init=False)
    """Steps launched but not yet read."""
    _asked: Tensor = field(init=False)
    """What this worker asks the others for, one number per entry of ASKED, on the device."""
    _own_reason: str | None = None

    def __post_init__(self) -> None:
        self.readback = Readback(self.device)
        self._asked = torch.zeros(len(ASKED), device=self.device)
        self.end = self.end or self.config.steps

    def ask(self, reason: str | None) -> None:
        """Ask all workers, with the next step's numbers, to stop or finish for `reason`."""
        if reason is not None and self._own_reason is None:
            self._own_reason = reason
            self._asked[ASKED.index("finish" if reason == FINISH else "stop")] = 1.0

    def heed(self, stop: float, finish: float) -> None:
        """Do what was asked for by any worker; all of them hear it with the same step."""
        if stop > 0:
            self.stop_reason = self._own_reason or "other_worker"
        elif finish > 0 and self.step < self.end:
            self.end = self.lr.finish_now(self.step)
            self._own_reason = None
            self._asked.zero_()


def train_epoch(run: TrainingRun, save: Callable[[], object], stop_reason: Callable[[], str | None]) -> str | None:
    """Train up to `run.end` optimizer steps; returns why it stopped early, None when it did not.

    `stop_reason` is asked before each step; what it says is heeded when the step's numbers have arrived.
    """
    config = run.config
    run.model.train()
    run.end = min(run.end, run.lr.anneal.end)
    clock = time.perf_counter()
    while run.step < run.end and run.stop_reason is None:
        run.ask(stop_reason())
        before = run.step
        if try_higher_rate(run):
            clock = time.perf_counter()
        take_step(run, clock)
        clock = time.perf_counter()
        report(run, run.readback.ready())
        if _is_due(config.eval_every, before, run.step):
            evaluate(run)
            clock = time.perf_counter()
        if _is_due(config.save_every, before, run.step) and run.step < run.end and run.stop_reason is None:
            report(run, run.readback.flush())
            save()
            clock = time.perf_counter()
    report(run, run.readback.flush())
    return run.stop_reason if run.step < run.end else None


def _is_due(every: int, before: int, step: int) -> bool:
    """Whether a multiple of `every` has been reached since `before`: a step usually goes by 1, a challenge by more."""
    return every > 0 and step // every > before // every


def take_step(run: TrainingRun, clock: float) -> None:
    """One optimizer step, from its micro-batches to its update; `clock` is when the step before was launched."""
    run.lr.before_step(run.step + 1)
    numbers, skip_above = accumulate_gradients(run), run.lr.skip_above
    lr = learning_rates(run.optimizer)  # before the update, after which an engine's own scheduler changes it
    grad_norm = run.engine.update(numbers[0], skip_above)
    run.step += 1
    tag = StepTag(run.step, lr, skip_above, time.perf_counter() - clock)
    run.readback.push(tag, torch.cat([numbers, grad_norm.float().reshape(1)]))


def accumulate_gradients(run: TrainingRun) -> Tensor:
    """Add up the gradients of all micro-batches; returns the step's numbers, means over all workers, on the device.

    They are loss, ce, used_segments, lb_loss and those of ASKED.
    """
    micro_batches = run.config.gradient_accumulation_steps
    means = torch.zeros(MODEL_NUMBERS + len(ASKED), device=run.device)
    for i in range(micro_batches):
        batch = to_device(run.train_batches.batch(run.position), run.device)
        run.position += 1
        means += run.engine.accumulate(batch, run._asked, micro_batches, last=i == micro_batches - 1)
        run.beat()
    return run.engine.average(means)


def to_device(batch: Tensor, device: torch.device) -> Tensor:
    """`batch` on the device; on CUDA copied in the background."""
    if device.type != "cuda":
        return batch.to(device)
    return batch.pin_memory().to(device, non_blocking=True)


def report(run: TrainingRun, done: list[tuple[StepTag, list[float]]]) -> None:
    """Log the steps whose numbers have arrived and let the learning rate follow their loss."""
    config = run.config
    sequences = config.batch_size * config.gradient_accumulation_steps * run.workers.world_size
    for tag, (loss, ce, used_segments, lb_loss, stop, finish, grad_norm) in done:
        record: dict[str, Any] = {
            "event": "train",
            "step": tag.step,
            "loss": loss,
            "ce": ce,
            "lr": tag.lr,
            "grad_norm": grad_norm,
            "tokens_per_sec": sequences * config.max_seq_len / tag.seconds,
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
        run.heed(stop, finish)


def try_higher_rate(run: TrainingRun) -> bool:
    """Where a higher rate is to be tried: train some steps with it and take back all but the count of them.

    Returns whether one was.
    """

    def train(lr: float, steps: int) -> list[float]:
        first_batch = run.position // run.config.gradient_accumulation_steps
        return train_and_restore(RunTrial(run), run.engine.snapshot(), first_batch, lr, steps)

    used = run.lr.try_higher(run.step, run.end, lambda: report(run, run.readback.flush()), train)
    run.step += used
    return used > 0


class RunTrial:
    """The run as a `Trial`: a batch is all micro-batches of one optimizer step; the loss is the cross-entropy."""

    def __init__(self, run: TrainingRun) -> None:
        self._run = run

    def evaluate(self, batch: int) -> float:
        """Mean cross-entropy of the step's micro-batches; no gradients."""
        run = self._run
        micro_batches = run.config.gradient_accumulation_steps
        total = 0.0
        for i in range(micro_batches):
            ids = to_device(run.train_batches.batch(batch * micro_batches + i), run.device)
            with torch.no_grad(), run.precision.autocast_context(run.device):
                total += float(run.model(input_ids=ids, labels=ids).ce)
            run.beat()
        return run.workers.mean(total / micro_batches)

    def train(self, batch: int, lr: float) -> float:
        """Mean cross-entropy of the step, then one update with `lr`; the run's position stays where it was."""
        run = self._run
        position, run.position = run.position, batch * run.config.gradient_accumulation_steps
        set_learning_rate(run.optimizer, lr)
        try:
            numbers = accumulate_gradients(run)
        finally:
            run.position = position
        run.engine.update(numbers[0], math.inf)
        return float(numbers[1])


def evaluate(run: TrainingRun) -> float:
    """Mean cross-entropy (nats per token) over the evaluation batches, logged; the model goes back to training.

    The workers share the batches among them, unless they must run in step: then each takes all of them.
    """
    report(run, run.readback.flush())
    first, every = (0, 1) if run.engine.in_step else (run.workers.rank, run.workers.world_size)
    run.model.eval()
    total, tokens = 0.0, 0.0
    with torch.inference_mode():
        for rows in islice(run.eval_batches, first, None, every):
            batch = to_device(rows, run.device)
            with run.precision.autocast_context(run.device):
                ce = run.model(input_ids=batch, labels=batch).ce
            targets = rows.shape[0] * (rows.shape[1] - 1)
            total, tokens = total + float(ce) * targets, tokens + targets
            run.beat()
    run.model.train()
    if every > 1:
        total, tokens = run.workers.sum(total, tokens)
    loss = total / tokens
    run.last_eval = (run.step, loss)
    run.emit({"event": "eval", "step": run.step, "loss": loss, "ppl": perplexity(loss), "tokens": int(tokens)})
    return loss


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large to say."""
    return math.exp(loss) if loss < 700 else math.inf
