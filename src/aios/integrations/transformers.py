"""`AutoLR` in transformers' `Trainer` and everything derived from it: `AutoLRCallback.attach(trainer)`."""

# ruff: noqa: E402 - a missing framework is named before anything else is loaded
from __future__ import annotations

from aios.integrations.versions import require

require("transformers")
require("accelerate")

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import SaveStrategy

from aios.auto_lr import AdaptiveLRScheduler, AutoLR, AutoLRConfig
from aios.auto_lr.events import LogFn
from aios.auto_lr.loop.trial import EngineTrial
from aios.errors import RunError, UserError
from aios.integrations.accelerated import (
    ahead_of,
    check_whole_model,
    inner,
    length_of,
    mean_over_workers,
    scaler_of,
)
from aios.integrations.framework_step import FrameworkStep
from aios.integrations.look_ahead import Ahead, LookAhead, begins_anew
from aios.integrations.reporting import Tally, logger, say_unfinished
from aios.integrations.trainer_schedulers import LossFedScheduler, SteeredScheduler
from aios.integrations.trainer_trial import run_ahead
from aios.integrations.wording import STRANGERS_CHECKPOINT, overruled, unheeded

_WEIGHTS_ALONE = (
    "the checkpoint has no scheduler.pt, in which AutoLR's state lies (save_only_model=True leaves it out): AutoLR "
    "begins with the steps that are left"
)
_LAYERWISE = "_layerwise"
_SCHEDULING = ("learning_rate", "lr_scheduler_type", "warmup_steps")


class AutoLRCallback(TrainerCallback):
    """Finds and steers the learning rate of a `Trainer`, an `SFTTrainer` or anything derived from one.

    `AutoLRCallback.attach(trainer)` before `trainer.train()` is all it takes. `max_steps` and epochs stay what they
    are; what a race trains comes on top, and is taken back. The rate is in the log as `learning_rate`, the rest as
    `auto_lr/...`; a checkpoint holds the controller's state. A run that cannot be saved ends with a checkpoint and
    a RunError.
    """

    def __init__(
        self, trainer: Trainer | None = None, config: AutoLRConfig | None = None, log_fn: LogFn | None = None
    ) -> None:
        if trainer is None:
            raise UserError("AutoLRCallback needs its trainer: build that first, then call AutoLRCallback.attach(it)")
        self.auto: AutoLR | None = None
        """The controller; None before training, and in one after `trainer.remove_callback`."""
        self._trainer, self._config = trainer, config or AutoLRConfig()
        self._tally = Tally(log_fn)
        self._ahead = LookAhead(self._begin_look)
        self._scheduler = SteeredScheduler(
            lambda: trainer.optimizer.param_groups, self._state_dict, lambda: trainer.state.global_step
        )
        self._loader: Any = None  # the training's; None before it
        self._step: FrameworkStep | None = None
        self._norm: Tensor | None = None  # of the newest gradient, before clipping
        self._watched: Any = None  # the accelerator that it comes from
        self._before = 0  # steps that were trained without us
        self._ended: RunError | None = None
        self._said_unheeded = False  # in this training
        self._training_step: Callable[..., Tensor] = trainer.training_step
        _check_updates(trainer)
        self._own_create = trainer.create_scheduler
        self._own_scheduler = None if trainer._created_lr_scheduler else trainer.lr_scheduler  # None: it makes one
        self._scheduled = _say_overruled(trainer.args, _usual(trainer.args), self._own_scheduler)
        trainer.create_scheduler = self._create_scheduler
        trainer.training_step = self._wrap_training_step(trainer.training_step)
        trainer.log = self._wrap_log(trainer.log)
        trainer._save_checkpoint = self._wrap_save(trainer._save_checkpoint)
        trainer._load_rng_state = self._wrap_load_rng(trainer._load_rng_state)

    @classmethod
    def attach(
        cls, trainer: Trainer, config: AutoLRConfig | None = None, log_fn: LogFn | None = None
    ) -> AutoLRCallback | LossFedScheduler:
        """Let `trainer` be steered; returns the callback. `log_fn` receives every event as a dict.

        A trainer that was given an `AdaptiveLRScheduler` (`optimizers=(optimizer, scheduler)`) goes by that alone,
        which has a config and a `log_fn` of its own: none is taken here. Raises UserError for a trainer that has a
        callback of ours already, that is training, or whose workers share out the weights.
        """
        check_whole_model(trainer.accelerator)
        if any(isinstance(known, (cls, LossFedScheduler)) for known in trainer.callback_handler.callbacks):
            raise UserError("an AutoLRCallback is attached to this trainer already: attach it once")
        if trainer.is_in_train:
            raise UserError("AutoLRCallback.attach comes before trainer.train(): training has begun")
        if isinstance(trainer.lr_scheduler, AdaptiveLRScheduler):
            if config is not None or log_fn is not None:
                raise UserError("the trainer goes by its AdaptiveLRScheduler: give config and log_fn to that one")
            callback: AutoLRCallback | LossFedScheduler = LossFedScheduler(trainer, trainer.lr_scheduler)
        else:
            callback = cls(trainer, config, log_fn)
        trainer.add_callback(callback)
        return callback

    # Where Trainer has no event: its own methods, with ours before or after.

    def _create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        trainer = self._trainer
        if self in trainer.callback_handler.callbacks:
            trainer.lr_scheduler = self._scheduler
            return self._scheduler
        self._release()  # removed from the trainer, whose training is its own again
        self.auto = None
        if trainer.lr_scheduler is self._scheduler:
            trainer.lr_scheduler = self._own_scheduler
        return self._own_create(num_training_steps, optimizer)

    def _wrap_training_step(self, training_step: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def step(*args: Any, **kwargs: Any) -> Tensor:
            loss = training_step(*args, **kwargs)
            if self._step is not None:
                self._step.see(loss)
            return loss

        return step

    def _watch_norm(self) -> None:
        """Keep what the trainer's accelerator, which may be another by now, finds when it clips."""
        accelerator = self._trainer.accelerator
        if accelerator is self._watched:
            return
        self._watched, clip = accelerator, accelerator.clip_grad_norm_

        def clip_grad_norm(*args: Any, **kwargs: Any) -> Any:
            if self._step is not None:
                self._step.check_dense()
            self._norm = clip(*args, **kwargs)
            return self._norm

        accelerator.clip_grad_norm_ = clip_grad_norm

    def _wrap_log(self, log: Callable[..., None]) -> Callable[..., None]:
        def tell(logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
            if self.auto is not None and "loss" in logs:
                rate = logs.get("learning_rate", self._scheduler.get_last_lr()[0])
                logs = {**logs, **self._tally.numbers(self.auto, rate)}
            log(logs, *args, **kwargs)

        return tell

    def _wrap_save(self, save: Callable[..., None]) -> Callable[..., None]:
        def save_checkpoint(*args: Any, **kwargs: Any) -> None:
            if self.auto is not None and self._ended is None:
                self._survive(self.auto.keep_snapshot, self._trainer.control)
            save(*args, **kwargs)

        return save_checkpoint

    def _wrap_load_rng(self, load_rng_state: Callable[..., None]) -> Callable[..., None]:
        def load(*args: Any, **kwargs: Any) -> None:
            load_rng_state(*args, **kwargs)
            self._load_state()

        return load

    # Trainer's events.

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Build the controller, and have the rate found or raced; on resume its state waits for the random numbers."""
        self._ended, self._norm, self._said_unheeded = None, None, False
        self._scheduled = _say_overruled(args, self._scheduled)  # a search for hyperparameters writes them by now
        self._release()  # of a training that an error has ended: Trainer has no event for that
        self._watch_norm()
        optimizer = inner(self._trainer.optimizer)
        scaler = scaler_of(self._trainer.accelerator)
        config = replace(self._config, max_grad_norm=args.max_grad_norm or torch.inf)
        self._loader = kw["train_dataloader"]
        saved = self._scheduler.loaded_of(state.global_step)
        self._before = state.global_step if saved is None else saved["before"]
        self._tally.begin()
        auto = AutoLR(
            self._trainer.model, optimizer, state.max_steps - self._before, config, self._tally, scaler=scaler
        )
        self.auto = auto
        self._step = FrameworkStep(auto, [optimizer], scaler, self._mean)
        if saved is not None:
            return
        if self._before:
            logger.warning(_WEIGHTS_ALONE if self._scheduler.loaded is None else STRANGERS_CHECKPOINT)
        if auto.obstacle is None:
            tries = begins_anew(self._loader)  # else nothing can be tried
            with self._ahead:
                auto.search(EngineTrial(auto.model, auto.engine, self._run_ahead) if tries else None)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Set the rate of the step. A finished run that is resumed has none left, but Trainer makes one more."""
        if self._step is None:
            return
        self._load_state()  # where Trainer had no random numbers to load
        if self._step.auto.finished:
            self._release()
            control.should_training_stop = True
        elif not self._step.open:  # Trainer begins anew where an epoch ended before an update
            self._step.begin()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
    ) -> None:
        """Leave the update out where it would do harm."""
        if self._step is not None:
            if self._norm is None:
                raise UserError(
                    "Trainer made an update without accelerator.clip_grad_norm_, which tells AutoLR the gradients' "
                    "norm: leave clipping to Trainer"
                )
            self._step.decide(torch.as_tensor(self._norm, dtype=torch.float32))

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any
    ) -> None:
        """The update is over."""
        if self._step is not None:
            self._step.updated()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Follow the step; see that an evaluation finds the weights that count."""
        if self._step is None or self.auto is None:
            return
        auto, self._norm = self.auto, None  # the next step brings its own
        with self._ahead:
            self._survive(self._step.follow, control)
        self._prepare_evaluation(args, control)
        if auto.finished:
            control.should_training_stop = True

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """As `on_step_end`, where evaluation comes with the epochs."""
        self._prepare_evaluation(args, control)

    def _prepare_evaluation(self, args: TrainingArguments, control: TrainerControl) -> None:
        """Where one is due, see that it finds the weights that count, and that these are what is saved after it."""
        if self.auto is None or not control.should_evaluate or self._ended is not None:
            return
        saves = control.should_save or args.save_strategy == SaveStrategy.BEST
        self._survive(self.auto.settle if saves else self.auto.flush, control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kw: Any
    ) -> None:
        """Hand on the loss of an evaluation; with several datasets that of the one that the best model goes by."""
        evaluated = metrics and any(name.startswith("eval_") for name in metrics)
        if not evaluated or self._step is None or not self._step.auto.begun:
            return
        auto, best = self._step.auto, _best_metric(args)
        if best in metrics and (loss := _loss_beside(best, metrics)) is not None:
            auto.report_eval(float(metrics[loss]))
        elif "eval_loss" in metrics:
            auto.report_eval(float(metrics["eval_loss"]))
        elif args.metric_for_best_model is None and auto.evaluations.policy != "ignore" and not self._said_unheeded:
            self._said_unheeded = True
            losses = [name for name in metrics if name.endswith("_loss")]
            logger.warning(unheeded("eval_loss", "TrainingArguments(metric_for_best_model=...)", losses))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Follow what was launched, let go of the optimizer; what could not be saved ends here, with a checkpoint."""
        if self.auto is not None and self._ended is None:
            self.auto.flush()
            self.auto.log_summary()
            say_unfinished(self.auto, "TrainingArguments(max_steps=...)")
        self._release()
        if self._ended is not None:
            raise self._ended

    def _release(self) -> None:
        """Let go of the optimizer."""
        if self._step is not None:
            self._step.release()
            self._step = None

    def _survive(self, act: Callable[[], object], control: TrainerControl) -> None:
        """End the run with a checkpoint where it cannot be saved; the error is raised when that is written."""
        try:
            act()
        except RunError as error:
            self._ended = error
            control.should_save = control.should_training_stop = True

    def _mean(self, number: Tensor) -> Tensor:
        return mean_over_workers(self._trainer.accelerator, number)

    def _run_ahead(self, batch: int, learns: bool) -> Tensor:
        return run_ahead(self._trainer, self._training_step, self._ahead, batch, learns)

    def _begin_look(self) -> Ahead:
        assert self.auto is not None
        args, state = self._trainer.args, self._trainer.state
        whole_run = state.max_steps * args.gradient_accumulation_steps  # Trainer counts it as one epoch
        per_epoch = length_of(self._loader, unknown=whole_run)
        drawn = round((state.epoch or 0) * per_epoch)
        return ahead_of(self._loader, self.auto.batch * args.gradient_accumulation_steps, drawn, per_epoch)

    def _state_dict(self) -> dict[str, Any]:
        state = self.auto.state_dict() if self.auto is not None else None
        return {"auto_lr": state, "before": self._before, "told": self._tally.state_dict()}

    def _load_state(self) -> None:
        """Take over what the checkpoint held, once."""
        if self.auto is None:
            return
        saved = self._scheduler.loaded_of(self._trainer.state.global_step)
        self._scheduler.loaded = None
        if saved is not None:
            self.auto.load_state_dict(saved["auto_lr"])
            self._tally.load_state_dict(saved.get("told"))


def _say_overruled(args: TrainingArguments, before: Mapping[str, Any], own: Any = None) -> dict[str, Any]:
    """One sentence about a schedule of the user's: what is set other than `before`, his `own`. Returns what is set."""
    now = {name: getattr(args, name) for name in _SCHEDULING}
    given = {name: value for name, value in now.items() if value != before[name]}
    named = [f"{name}={getattr(value, 'value', value)}" for name, value in given.items()]
    if own is not None:
        named.append(f"the scheduler ({type(own).__name__})")
    if named:
        logger.warning(overruled(" and ".join(named)))
    return now


def _usual(args: TrainingArguments) -> dict[str, Any]:
    """What is set of a schedule where nobody has set it."""
    return {field.name: field.default for field in fields(args) if field.name in _SCHEDULING}


def _check_updates(trainer: Trainer) -> None:
    """Raise UserError for an optimizer of Trainer's that makes its updates in the backward pass, layer by layer."""
    optim = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if trainer.optimizer is None and optim.endswith(_LAYERWISE):
        raise UserError(
            f"optim={optim} makes its updates in the backward pass, where none can be left out or taken back: take "
            f"{optim.removesuffix(_LAYERWISE)}"
        )


def _best_metric(args: TrainingArguments) -> str:
    """What the best model goes by, as Trainer's metrics call it."""
    name = args.metric_for_best_model or "loss"
    return name if name.startswith("eval_") else f"eval_{name}"


def _loss_beside(best: str, metrics: Mapping[str, float]) -> str | None:
    """The metric `best` itself where it is a loss, else the loss of the same dataset; None where there is none."""
    if best.endswith("loss"):
        return best
    losses = [name for name in metrics if name.endswith("_loss") and best.startswith(name.removesuffix("loss"))]
    return max(losses, key=len, default=None)
