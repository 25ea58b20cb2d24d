"""`AutoLR` in Lightning: `Trainer(callbacks=[AutoLRCallback()])`."""

# ruff: noqa: E402 - a missing framework is named before anything else is loaded
from __future__ import annotations

from aios.integrations.versions import require

require("lightning")

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.events import LogFn
from aios.auto_lr.loop.arguments import shared_out
from aios.auto_lr.loop.trial import EngineTrial
from aios.auto_lr.loop.update import reads_flags
from aios.errors import RunError, UserError
from aios.integrations.framework_step import FrameworkStep, StepCount
from aios.integrations.lightning_averaging import begin_averages_anew
from aios.integrations.lightning_steps import renews_statistics, steps_done, steps_of
from aios.integrations.lightning_trial import begin_look, can_be_tried, clips_at, gradients_of, run_ahead
from aios.integrations.look_ahead import Ahead, LookAhead, begins_anew
from aios.integrations.reporting import Tally, logger, say_unfinished
from aios.integrations.wording import STRANGERS_CHECKPOINT, overruled, unheeded

STOPPED = "auto_lr_stopped.ckpt"
"""What a run that cannot be saved leaves: the last good state."""
_UNSEEN_STEP = (
    "an optimizer has stepped without AutoLR, which takes the loss from self.manual_backward(loss) and the step from "
    "the optimizer that self.optimizers() gives: use these two in training_step, loss first"
)
_UNMADE_STEP = (
    "optimizer_step has made no update for a batch that Lightning counts as a step: without "
    "AutoLRCallback(steps=...), the number of updates in the run, AutoLR's anneal comes too late"
)
_GOES_ON = (
    "all of AutoLR's steps are done, and Lightning trains on (min_epochs or min_steps) at the last rate of the anneal, "
    "which nobody watches: leave min_epochs and min_steps out where AutoLR is to end the run"
)


@dataclass(frozen=True)
class _Fit:
    """What holds from the start of one training to its end."""

    trainer: pl.Trainer
    """Who trains."""
    auto: AutoLR
    """The controller."""
    step: FrameworkStep
    """The optimizer step under way."""
    scaler: torch.amp.GradScaler | None
    """Loss scaling of 16-bit training."""


class AutoLRCallback(pl.Callback):
    """Finds and steers the learning rate of everything that `configure_optimizers` returns.

    `Trainer(callbacks=[AutoLRCallback()])` is all it takes. `max_steps` and `max_epochs` stay what they are; race steps
    come on top. With manual optimization the rate climbs, even for a model that was trained before. `steps` is needed
    if Lightning knows of no end; `monitor` names the logged loss of an evaluation. Events go to `log_fn`, numbers to
    the trainer's loggers.

    Raises UserError for a strategy that shares out the weights and for a step made without it, and RunError, after a
    checkpoint, when the run cannot be saved.
    """

    def __init__(
        self,
        config: AutoLRConfig | None = None,
        steps: int | None = None,
        log_fn: LogFn | None = None,
        monitor: str = "val_loss",
    ) -> None:
        self.auto: AutoLR | None = None
        """The controller; None before training."""
        self._config, self._steps, self._monitor = config or AutoLRConfig(), steps, monitor
        self._log, self._tally = log_fn, Tally(self._note)
        self._ahead = LookAhead(self._begin_look)
        self._loaded: dict[str, Any] | None = None
        self._fit: _Fit | None = None
        self._trial: EngineTrial | None = None  # None where nothing can be tried
        self._left_out = False  # whether the step that has begun had no loss
        self._searched = False  # whether the rate was found, or is known from a checkpoint
        self._norm = torch.zeros(())  # of manual optimization, before the module clips
        self._rate: float | Tensor = 0.0  # of the step
        self._count: StepCount | None = None  # of manual optimization
        self._before = 0  # steps that were trained without us
        self._batches = 0  # trained on in this epoch
        self._said = set[str]()  # in this fit

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Build the controller, or go on with its state."""
        _check(trainer)
        if trainer.lr_scheduler_configs:
            logger.warning(overruled("the scheduler of configure_optimizers"))
        if any(isinstance(callback, LearningRateFinder) for callback in trainer.callbacks):
            logger.warning(overruled("LearningRateFinder"))
        goes_on, done = self._loaded is not None, steps_done(trainer, pl_module)
        fits_again = self.auto is not None
        self._before = self._loaded["before"] if self._loaded is not None else done
        self._tally.begin()
        self._fit = self._begin_fit(trainer, pl_module)
        auto = self.auto = self._fit.auto
        if not pl_module.automatic_optimization:
            self._count = StepCount(trainer.optimizers)
        tries = can_be_tried(pl_module) and begins_anew(trainer.train_dataloader)
        self._trial = EngineTrial(pl_module, auto.engine, self._run_ahead) if tries else None
        self._left_out = False
        self._said.clear()
        self._searched = goes_on
        if self._loaded is not None:
            auto.load_state_dict(self._loaded["auto_lr"])
            self._tally.load_state_dict(self._loaded.get("told"))
            self._loaded = None
        if done and not (goes_on or fits_again):
            logger.warning(STRANGERS_CHECKPOINT)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count its batches."""
        self._batches = 0

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Set the rate of the step, before its first batch; before the run's first one have it found or raced.

        Not sooner: `training_step` may need what the module's own hooks prepare.
        """
        fit = self._fitting()
        if not self._searched:
            self._searched = True
            if fit.auto.obstacle is None:
                with self._ahead:
                    fit.auto.search(self._trial)
        if fit.auto.finished:
            if not renews_statistics(trainer, pl_module):
                self._say_once(_GOES_ON)
        elif not fit.step.open:
            fit.step.begin()
        if self._count is not None:
            self._count.begin()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Take a batch's part of the loss."""
        if (step := self._open_step) is not None:
            step.see(self._unscaled(loss))

    def on_after_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the norm where the module itself may clip before its steps."""
        if (step := self._open_step) is not None and not pl_module.automatic_optimization:
            self._norm = self._unscaled(_norm(trainer, step))

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        """Leave the update out where it would do harm; with several optimizers for each of them."""
        step = self._open_step
        if step is not None and step.seen:
            if pl_module.automatic_optimization:
                step.decide(_norm(trainer, step), trainer.accumulate_grad_batches)
            else:
                step.decide(self._norm)
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            self._rate = rate.clone() if isinstance(rate, Tensor) else rate  # on the device: copied without waiting
        else:
            self._left_out = step is not None  # by a training_step that returned None; Lightning counts the step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Follow the step, if the batch ended one."""
        fit = self._fitting()
        self._batches += 1
        if fit.step.decided:
            self._left_out = False
            fit.step.updated()
            with self._ahead:
                self._survive(fit.step.follow)
            every = trainer.log_every_n_steps  # 0: never
            if every and trainer.global_step % every == 0:
                self._tell(trainer)
        elif fit.step.open and self._count is not None and self._count.made:
            raise UserError(_UNSEEN_STEP)
        elif self._left_out:
            self._left_out = False
            fit.step.pass_by()
        elif fit.step.open and fit.step.seen:
            self._say_unmade(trainer, pl_module)
        if fit.auto.finished and not renews_statistics(trainer, pl_module):
            trainer.should_stop = True

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """See that an evaluation finds the weights that count."""
        if self.auto is not None and self.auto.begun and _fits(trainer):
            self._survive(self.auto.settle if trainer.checkpoint_callbacks else self.auto.flush)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hand on the loss of an evaluation."""
        auto, metrics = self.auto, trainer.callback_metrics
        if auto is None or not auto.begun or not _fits(trainer):
            return
        if self._monitor in metrics:
            auto.report_eval(float(metrics[self._monitor]))
        elif auto.evaluations.policy != "ignore":
            losses = [name for name in metrics if "loss" in name and not name.startswith("train")]
            self._say_once(unheeded(self._monitor, "AutoLRCallback(monitor=...)", losses))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Follow what was launched, and let go of the optimizers."""
        auto = self._fitting().auto
        self._survive(auto.flush)
        auto.log_summary()
        if _UNMADE_STEP not in self._said:  # which asks for the same
            say_unfinished(auto, "AutoLRCallback(steps=...)")
        self._release()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Let go of the optimizers."""
        self._release()

    def state_dict(self) -> dict[str, Any]:
        """Plain values. Lightning asks on every worker, with the weights at hand and the optimizers to come."""
        if self.auto is None:
            return {}
        self.auto.keep_snapshot()
        return {"auto_lr": self.auto.state_dict(), "before": self._before, "told": self._tally.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the state until training starts, when all else is loaded."""
        self._loaded = state_dict or None

    def _note(self, record: dict[str, Any]) -> None:
        """Hand an event on. A climb's comes when the weights of its edge are taken back."""
        if record["event"] == "adaptive_lr_climb" and record["step"] > 0:
            trainer = self._fitting().trainer
            begin_averages_anew(trainer, trainer.lightning_module)
        if self._log is not None:
            self._log(record)

    def _say_unmade(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where Lightning has counted a step that the module did not make."""
        counted = pl_module.automatic_optimization and not trainer.fit_loop.epoch_loop._should_accumulate()
        if counted and self._steps is None:
            self._say_once(_UNMADE_STEP)

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            logger.warning(sentence)

    def _release(self) -> None:
        if self._fit is not None:
            self._fit.step.release()
        if self._count is not None:
            self._count.release()
            self._count = None

    def _fitting(self) -> _Fit:
        if self._fit is None:
            raise UserError("AutoLRCallback joins before fit, in Trainer(callbacks=[...]): training has begun")
        return self._fit

    @property
    def _open_step(self) -> FrameworkStep | None:
        """The step that has begun and is not followed yet."""
        return self._fit.step if self._fit is not None and self._fit.step.open else None

    def _begin_fit(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> _Fit:
        config = replace(self._config, max_grad_norm=clips_at(trainer))
        steps = (self._steps or steps_of(trainer, pl_module)) - self._before
        scaler: torch.amp.GradScaler | None = getattr(trainer.precision_plugin, "scaler", None)
        auto = AutoLR(pl_module, trainer.optimizers, steps, config, self._tally, scaler=scaler)
        step = FrameworkStep(auto, trainer.optimizers, scaler, partial(_mean, trainer))
        return _Fit(trainer, auto, step, scaler)

    def _unscaled(self, number: Tensor) -> Tensor:
        """Without the scale of 16-bit training, which stays on the device."""
        number, scaler = number.detach().float(), self._fitting().scaler
        return number if scaler is None else number / scaler.scale(torch.ones_like(number))

    def _run_ahead(self, batch: int, learns: bool) -> Tensor:
        fit = self._fitting()
        return _mean(fit.trainer, run_ahead(fit.trainer, self, fit.auto.engine, self._ahead, batch, learns))

    def _begin_look(self) -> Ahead:
        trainer, auto = self._fitting().trainer, self._fitting().auto
        number = auto.batch * trainer.accumulate_grad_batches
        return begin_look(trainer, number, self._batches)

    def _survive(self, act: Callable[[], object]) -> None:
        """Leave a checkpoint where the run cannot be saved."""
        try:
            act()
        except RunError:
            trainer = self._fitting().trainer
            place = Path(trainer.default_root_dir) / STOPPED
            trainer.save_checkpoint(place)
            logger.error("AutoLR has stopped the run; its last good state is in %s", place)
            raise

    def _tell(self, trainer: pl.Trainer) -> None:
        numbers = self._tally.numbers(self._fitting().auto, float(self._rate))
        for sink in trainer.loggers:
            sink.log_metrics(numbers, step=trainer.global_step)


def _check(trainer: pl.Trainer) -> None:
    """Raise UserError for what cannot be steered."""
    if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise UserError(shared_out(type(trainer.strategy).__name__))
    scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
    if scaled and any(map(reads_flags, trainer.optimizers)):
        raise UserError("a fused optimizer under 16-mixed hides its gradients' norm: build it without fused=True")


def _fits(trainer: pl.Trainer) -> bool:
    """Whether an evaluation is part of training: not the user's own `validate`, nor the sanity check."""
    return trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking


def _mean(trainer: pl.Trainer, number: Tensor) -> Tensor:
    """Over the workers, left on the device."""
    mean: Tensor = trainer.strategy.reduce(number.clone(), reduce_op="mean")
    return mean


def _norm(trainer: pl.Trainer, step: FrameworkStep) -> Tensor:
    """Of the whole gradient of a step, over all optimizers; nothing is clipped."""
    step.check_dense()
    return torch.nn.utils.get_total_norm(gradients_of(trainer.optimizers))
