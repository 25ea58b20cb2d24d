"""What `Trainer` takes for its learning rate scheduler while the rate follows the loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from aios.auto_lr import AdaptiveLRScheduler
from aios.integrations.accelerated import mean_over_workers


class SteeredScheduler:
    """Sets nothing: `AutoLR` does. The rate in force is what it shows, and the controller's state is its own.

    So the state lies in the checkpoint's `scheduler.pt`, and comes back from there. A `LambdaLR`, which all schedules
    of transformers but one are, reads there after how many steps it goes on, should the trainer be steered no more.
    """

    def __init__(
        self,
        groups: Callable[[], list[dict[str, Any]]],
        state: Callable[[], dict[str, Any]],
        steps: Callable[[], int],
    ) -> None:
        self._groups, self._state, self._steps = groups, state, steps
        self.loaded: dict[str, Any] | None = None
        """What a checkpoint held, until somebody takes it."""

    def step(self, *_: Any) -> None:
        """Trainer asks for it after each update."""

    def get_last_lr(self) -> list[float]:
        """The learning rate of each param group."""
        return [float(group["lr"]) for group in self._groups()]

    def state_dict(self) -> dict[str, Any]:
        """Of the controller."""
        steps = self._steps()
        return {"steps": steps, **self._state(), "last_epoch": steps, "lr_lambdas": []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state until model, optimizer and random numbers are back, too."""
        self.loaded = dict(state)

    def loaded_of(self, steps: int) -> dict[str, Any] | None:
        """What was loaded, if it is the controller's after `steps` steps, not an older one's that a `LambdaLR` kept."""
        saved = self.loaded
        if saved is None or saved.get("auto_lr") is None or saved.get("steps", steps) != steps:
            return None
        return saved


class LossFedScheduler(TrainerCallback):
    """Feeds the loss to an `AdaptiveLRScheduler`, whose `step` needs one, under a `Trainer`, which passes none.

    It is both in one: the trainer's scheduler, and the callback that knows when a step's loss begins anew.
    """

    def __init__(self, trainer: Trainer, scheduler: AdaptiveLRScheduler) -> None:
        self._trainer, self._scheduler = trainer, scheduler
        self._loss: Tensor | None = None  # of the step so far, of this worker
        self._training_step: Callable[..., Tensor] = trainer.training_step
        trainer.training_step = self._seeing_step
        trainer.lr_scheduler = self

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """The loss of another step."""
        self._loss = None

    def _seeing_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = self._training_step(*args, **kwargs)
        self._loss = loss.detach().float() + (0.0 if self._loss is None else self._loss)
        return loss

    def step(self, *_: Any) -> None:
        """One optimizer step is done. On an accelerator the scheduler reads its losses window by window."""
        if self._loss is not None:  # Trainer may call once more before the first step
            self._scheduler.step(mean_over_workers(self._trainer.accelerator, self._loss))

    def get_last_lr(self) -> list[float]:
        """The learning rate of each param group."""
        return self._scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Of the scheduler."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the scheduler."""
        self._scheduler.load_state_dict(state)
