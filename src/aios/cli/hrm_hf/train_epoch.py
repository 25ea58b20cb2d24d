"""The step loop: micro-batches, update, learning rate, log, sample, evaluation, checkpoints, in that order."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr.api import AutoLR
from aios.auto_lr.events import LogFn, not_learning
from aios.auto_lr.loop.readback import StepReport
from aios.auto_lr.loop.trial import EngineTrial
from aios.auto_lr.overfit import Evaluation
from aios.auto_lr.stalled import StalledWatch
from aios.core.hrm_models import HRMForCausalLM
from aios.data.dataset import EvalBatches, TrainBatches
from aios.distributed.workers import Workers
from aios.engines.device import Precision
from aios.engines.engine import ASKED, MODEL_NUMBERS, TrainEngine
from aios.runs.stop_file import Request
from aios.settings.config import TrainingConfig
from aios.settings.learning_rate import auto_lr_config


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
    optimizers: tuple[torch.optim.Optimizer, ...]
    """Fused AdamW, perhaps behind Muon."""
    scaler: torch.amp.GradScaler
    """Loss scaling; disabled unless the precision wants it."""
    engine: TrainEngine
    """Makes and applies gradients, alone or with the other workers."""
    train_batches: TrainBatches
    """Training data by position."""
    eval_batches: EvalBatches
    """Evaluation data."""
    log_fn: LogFn
    """Takes each log record."""
    workers: Workers = field(default_factory=Workers)
    """Who trains this model together."""
    beat: Callable[[], None] = lambda: None
    """Called after every batch: tells whoever watches that the run goes on."""
    go_back: Callable[[TrainingRun, int], bool] | None = None
    """Brings back the training state saved after a step, see `AutoLR`; None: it is kept in memory."""
    sampler: Callable[[HRMForCausalLM], tuple[str, str]] | None = None
    """(prompt, how the model goes on), for the log; None: another worker says it."""
    stalled: StalledWatch | None = None
    """Says where nothing is learned; None: another worker says it."""
    auto: AutoLR = field(init=False)
    """Steers the learning rate, and with it the run: it counts the steps and says when they are done."""
    position: int = 0
    """Micro-batches drawn from `train_batches`."""
    stop_reason: str | None = None
    """Why to stop early, once all workers know."""
    last_loss: float = math.nan
    """Cross-entropy of the newest step read back."""
    last_eval: tuple[int, float] | None = None
    """(step, loss) of the newest evaluation."""
    climb_eval: Evaluation | None = None
    """The lowest evaluation in the climb of this sitting, where none counts."""
    asked: Tensor = field(init=False)
    """What this worker asks the others for, one number per entry of ASKED, on the device."""
    _own_reason: str | None = None
    _heard: list[float] = field(default_factory=lambda: [0.0] * len(ASKED))

    def __post_init__(self) -> None:
        self.asked = torch.zeros(len(ASKED), device=self.device)
        config, optimizers = self.config, self.engine.optimizers
        self.auto = AutoLR(
            self.model, optimizers, config.steps, auto_lr_config(config), self.log_fn, use_moe=config.use_moe,
            engine=self.engine, on_step=self._report,
            go_back=partial(self.go_back, self) if self.go_back is not None else None,
        )  # fmt: skip

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return self.auto.step_count

    @property
    def over(self) -> bool:
        """Whether no step follows: whoever made the run saves it, or hands it in, as it is."""
        return self.auto.finished or self.stop_reason is not None

    @property
    def at_best(self) -> bool:
        """Whether the weights of now are those of the best evaluation, as far as evaluations are heeded."""
        return self.auto.evaluations.is_best(self.step)

    def ask(self, reason: str | None) -> None:
        """Ask all workers, with the next step's numbers, to stop or finish for `reason`."""
        if reason is not None and self._own_reason is None:
            self._own_reason = reason
            self.asked[ASKED.index("finish" if reason is Request.FINISH else "stop")] = 1.0

    def heed(self) -> None:
        """Do what was asked for by any worker; all of them hear it with the same step."""
        stop, finish = self._heard
        if stop > 0:
            self.stop_reason = self._own_reason or "other_worker"
        elif finish > 0 and not self.auto.finished:
            self.auto.finish_now()
            self._own_reason = None
            self.asked.zero_()
        self._heard = [0.0] * len(ASKED)

    def _report(self, report: StepReport) -> None:
        """Log a step whose numbers have arrived."""
        config, seconds, lrs = self.config, report.launched.tag, report.launched.lrs
        loss, ce, used_segments, lb_loss, *asked = report.numbers
        sequences = config.sequences_per_step(self.workers.world_size)
        record: dict[str, Any] = {
            "event": "train",
            "step": report.launched.step,
            "loss": loss,
            "ce": ce,
            "lr": lrs[0] if len(set(lrs)) == 1 else lrs,
            "grad_norm": report.grad_norm,
            "tokens_per_sec": sequences * config.max_seq_len / seconds,
            "step_time_s": seconds,
            "used_segments": used_segments,
        }
        if config.use_moe:
            record["lb_loss"] = lb_loss
        self.log_fn(record)
        self._tell_if_stalled(report.launched.step, ce, lrs[0])
        self.last_loss = ce
        self._heard = [max(before, now) for before, now in zip(self._heard, asked, strict=True)]

    def _tell_if_stalled(self, step: int, loss: float, lr: float) -> None:
        """Say once, with what it looks like, that the model is not learning; what is done about it is `auto`'s."""
        if self.stalled is None or self.stalled.over:
            return
        control = self.auto.control
        seen = self.stalled.observe(step, loss, settled=control is not None and control.settled(step))
        if seen is not None:
            self.log_fn(not_learning(step, **asdict(seen), reason=seen.reason, lr=lr))


def train_epoch(run: TrainingRun, save: Callable[[], object], stop_reason: Callable[[], str | None]) -> str | None:
    """Train until `run.auto` has finished; returns why it stopped early, None when it did not.

    `stop_reason` is asked before each step; what it says is heeded when the step's numbers have arrived.
    """
    config, auto = run.config, run.auto
    run.model.train()
    while not run.over:
        clock = time.perf_counter()
        run.ask(stop_reason())
        take_step(run, clock)
        run.heed()
        if _is_due(config.sample_every, run.step):
            sample(run)
        saves = _is_due(config.save_every, run.step)
        if _is_due(config.eval_every, run.step):
            evaluate(run, saved=saves or run.over)
        if (saves or run.at_best) and not run.over:
            save()
    auto.flush()
    run.heed()
    return None if auto.finished else run.stop_reason


def _is_due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def take_step(run: TrainingRun, clock: float) -> None:
    """One optimizer step, from its micro-batches to its update; `clock` is when the step before was launched."""
    run.auto.before_step()
    numbers = accumulate_gradients(run, run.auto.skip_above)
    grad_norm = run.engine.update(numbers[0], run.auto.skip_above)
    run.auto.after_step(numbers[1], grad_norm, numbers, tag=time.perf_counter() - clock)


def accumulate_gradients(run: TrainingRun, skip_above: float) -> Tensor:
    """Add up the gradients of all micro-batches; returns the step's numbers, means over all workers, on the device.

    They are loss, ce, used_segments, lb_loss and those of ASKED. `skip_above`: see `TrainEngine.accumulate`.
    """
    micro_batches = run.config.gradient_accumulation_steps
    means = torch.zeros(MODEL_NUMBERS + len(ASKED), device=run.device)
    for i in range(micro_batches):
        batch = run.train_batches.batch(run.position).to(run.device)
        run.position += 1
        is_last = i == micro_batches - 1
        means += run.engine.accumulate(batch, run.asked, micro_batches, is_last, skip_above)
        run.beat()
    return run.engine.average(means)


def run_trial(run: TrainingRun) -> EngineTrial:
    """The run as a `Trial`: a batch is all micro-batches of one optimizer step; the cross-entropy is followed.

    The run's position stays where it was.
    """

    def numbers(batch: int, learns: bool) -> Tensor:
        position = run.position
        run.position += (batch - run.auto.batch) * run.config.gradient_accumulation_steps
        try:
            if learns:
                return accumulate_gradients(run, math.inf)
            return torch.tensor(_cross_entropy(run), dtype=torch.float64)
        finally:
            run.position = position

    return EngineTrial(run.model, run.engine, numbers, followed=1)


def _cross_entropy(run: TrainingRun) -> float:
    """Its mean over the micro-batches of the next optimizer step, and over all workers; no gradients."""
    micro_batches = run.config.gradient_accumulation_steps
    total = 0.0
    for i in range(micro_batches):
        rows = run.train_batches.batch(run.position + i).to(run.device)
        with torch.no_grad(), run.precision.autocast_context(run.device):
            total += float(run.model(**rows._asdict()).ce)
        run.beat()
    return run.workers.mean(total / micro_batches)


def evaluate(run: TrainingRun, saved: bool = False) -> float:
    """Mean cross-entropy (nats per token) over the evaluation batches, logged and heeded; back to training.

    With `saved` the weights are saved after it: a climb that the save would end, ends before it. The workers share the
    batches among them, unless they must run in step: then each takes all of them.
    """
    if saved:
        run.auto.settle()  # the weights of a climb past its knee are not those that stay
    else:
        run.auto.flush()
    first, every = (0, 1) if run.engine.in_step else (run.workers.rank, run.workers.world_size)
    run.model.eval()
    losses: list[Tensor] = []  # on the device, so that no batch waits for the one before
    targets: list[int] = []
    # No inference mode: what ZeRO-3 gathers in it could not be trained on afterwards.
    with shown_weights(run), torch.no_grad():
        for rows in islice(run.eval_batches, first, None, every):
            batch = rows.to(run.device)
            with run.precision.autocast_context(run.device):
                losses.append(run.model(**batch._asdict()).ce)
            targets.append(rows.targets)
            run.beat()
    run.model.train()
    total, tokens = _weighted_sum(losses, targets), float(sum(targets))
    counts = every > 1 or run.workers.is_main  # where all have taken all, one speaks for them: they must decide alike
    total, tokens = run.workers.sum(*(total, tokens) if counts else (0.0, 0.0))
    loss = total / tokens
    run.last_eval = (run.step, loss)
    run.log_fn({"event": "eval", "step": run.step, "loss": loss, "ppl": perplexity(loss), "tokens": int(tokens)})
    if run.auto.climbing and loss < (run.climb_eval.loss if run.climb_eval is not None else math.inf):
        run.climb_eval = Evaluation(run.step, loss, None)
    run.auto.report_eval(loss)
    return loss


def _weighted_sum(losses: Sequence[Tensor], counts: Sequence[int]) -> float:
    """The losses of batches (scalars on one device), each times its count of targets, added up in double precision."""
    total = 0.0
    for loss, count in zip(torch.stack(tuple(losses)).tolist() if losses else (), counts, strict=True):
        total += loss * count  # one by one: `sum` rounds in another way since Python 3.12
    return total


def sample(run: TrainingRun) -> None:
    """Log what the model says by now. Training does not notice; on CUDA the record may precede that of its step."""
    if run.sampler is None:
        return
    with shown_weights(run):
        prompt, text = run.sampler(run.model)
    run.model.train()
    run.beat()
    run.log_fn({"event": "sample", "step": run.step, "prompt": prompt, "text": text})


def shown_weights(run: TrainingRun) -> AbstractContextManager[None]:
    """In the block the model has the weights that are evaluated and published: their average, if there is one."""
    ema = run.engine.ema
    return ema.in_force() if ema is not None else nullcontext()


def perplexity(loss: float) -> float:
    """exp(loss), infinite where that is too large to say."""
    return math.exp(loss) if loss < 700 else math.inf
