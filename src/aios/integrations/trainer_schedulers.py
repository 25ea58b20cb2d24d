"""What `Trainer` takes for its learning rate scheduler while the rate is steered from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from aios.auto_lr import AdaptiveLRScheduler


class SteeredScheduler:
    """Sets nothing: `AutoLR` does. The rate in force is what it shows, and the controller's state is its own.

    So the state lies in the checkpoint's `scheduler.pt`, and comes back from there.
    """

    def __init__(self, groups: Callable[[], list[dict[str, Any]]], state: Callable[[], dict[str, Any]]) -> None:
        self._groups, self._state = groups, state
        self.loaded: dict[str, Any] | None = None
        """What a checkpoint held, until somebody takes it."""

    def step(self, *_: Any) -> None:
        """Trainer asks for it after each update."""

    def get_last_lr(self) -> list[float]:
        """The learning rate of each param group."""
        return [float(group["lr"]) for group in self._groups()]

    def state_dict(self) -> dict[str, Any]:
        """Of the controller."""
        return self._state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the state until model, optimizer and random numbers are back, too."""
        self.loaded = dict(state)


class LossFedScheduler:
    """`AdaptiveLRScheduler`, whose `step` takes a loss, for a trainer whose `step` brings none: `take_loss` does."""

    def __init__(self, scheduler: AdaptiveLRScheduler, take_loss: Callable[[], Tensor | None]) -> None:
        self._scheduler, self._take_loss = scheduler, take_loss

    def step(self, *_: Any) -> None:
        """One optimizer step is done. On an accelerator the scheduler reads its losses window by window."""
        loss = self._take_loss()
        if loss is not None:
            self._scheduler.step(loss)

    def get_last_lr(self) -> list[float]:
        """The learning rate of each param group."""
        return self._scheduler.get_last_lr()

    def state_dict(self) -> dict[str, Any]:
        """Of the scheduler."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Into the scheduler."""
        self._scheduler.load_state_dict(state)
