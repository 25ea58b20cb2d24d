"""A loop's state among what Accelerate saves and loads, and not longer than its optimizers are there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch.utils.hooks import RemovableHandle

from aios.auto_lr import AutoLR
from aios.integrations.accelerated import inner


class Saved(Protocol):
    """A loop, as checkpoints see it."""

    auto: AutoLR
    """The controller."""

    def release(self) -> None:
        """Let go of optimizers and checkpoints."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`."""


class InCheckpoints:
    """A `loop` registered with `accelerator` until `leave`; those whose optimizers it has let go of leave first.

    The accelerator knows it weakly, and its optimizers hold it: else every attempt of `find_executable_batch_size`
    would stay in memory, with its model, and in the checkpoints.
    """

    def __init__(self, accelerator: Accelerator, loop: Saved, optimizers: Sequence[Any]) -> None:
        registered = accelerator._custom_objects
        outlived = [one for one in registered if isinstance(one, InCheckpoints) and one._is_outlived(accelerator)]
        for known in outlived:
            known._loop_now().release()
        if outlived:
            gc.collect()  # they refer to themselves, and `free_memory` collects before it lets go
        self._loop, self._optimizers = weakref.ref(loop), [weakref.ref(optimizer) for optimizer in optimizers]
        self._prepared = self._is_known_to(accelerator)
        accelerator.register_for_checkpointing(self)
        handles = [accelerator.register_save_state_pre_hook(lambda *_: self._loop_now().auto.keep_snapshot())]
        holders = [one for one in optimizers if isinstance(one, torch.optim.Optimizer)]
        handles += [one.register_step_post_hook(partial(_hold, loop)) for one in holders]
        self.leave = weakref.finalize(loop, _leave, registered, self, handles)
        """Takes the loop out again; its end does so, too."""
        self.leave.atexit = False

    def state_dict(self) -> dict[str, Any]:
        """That of the loop."""
        return self._loop_now().state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand it on to the loop."""
        self._loop_now().load_state_dict(state)

    def _is_outlived(self, accelerator: Accelerator) -> bool:
        """Whether `accelerator.free_memory()` has let go of its optimizers."""
        return self._prepared and not self._is_known_to(accelerator)

    def _is_known_to(self, accelerator: Accelerator) -> bool:
        ours = {id(optimizer()) for optimizer in self._optimizers}
        return any(id(inner(one)) in ours for one in accelerator._optimizers)

    def _loop_now(self) -> Saved:
        loop = self._loop()
        assert loop is not None  # `leave` comes with its end
        return loop


def _hold(loop: Saved, *_: Any) -> None:
    """Do nothing: who has this hook keeps the loop alive."""


def _leave(registered: list[Any], entry: InCheckpoints, handles: Sequence[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
    registered[:] = [one for one in registered if one is not entry]
