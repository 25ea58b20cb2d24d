"""What the evaluations of a run lead to: the best state known, a copy of it if asked for, and the way back to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aios.auto_lr.loop.engine import Engine
from aios.auto_lr.overfit import Evaluation, OverfitWatch, Turn
from aios.auto_lr.plan import AutoLRConfig
from aios.auto_lr.recovery import Restorable

GoBack = Callable[[int], bool]
"""Restores the state saved after the given step; returns False if it is gone. All workers call it together."""


class Evaluations:
    """Watches the evaluations of a run that is steered as `config` says.

    `go_back` is where the caller keeps the best state; without it `finish` keeps a copy in memory, of the weights and
    the optimizer state, where `engine` can make one.
    """

    def __init__(self, config: AutoLRConfig, engine: Engine, go_back: GoBack | None) -> None:
        self.policy = config.overfit_policy
        self.watch = OverfitWatch()
        self._engine, self._go_back = engine, go_back
        self._copy: Restorable | None = None

    def trained(self, loss: float) -> None:
        """Take the training loss of a step."""
        if self.policy != "ignore":
            self.watch.trained(loss)

    @property
    def best(self) -> Evaluation | None:
        """The best so far; None before the first, and where they are ignored."""
        return self.watch.best

    @property
    def overfitting(self) -> bool:
        """Whether the evaluation loss has turned up beyond its noise since the best one."""
        return self.watch.turned

    def is_best(self, step: int) -> bool:
        """Whether the best evaluation is that after optimizer step `step`."""
        return self.best is not None and self.best.step == step

    def observe(self, step: int, loss: float, may_finish: bool) -> dict[str, Any] | None:
        """Take the evaluation after optimizer step `step`; returns the event that tells of a turn where it shows one.

        Where `may_finish` and the policy is `finish`, the best state has been restored, and `watch.finishing` is set.
        """
        if self.policy == "ignore":
            return None
        turn = self.watch.observe(step, loss)
        if turn is not None:
            return {"event": "overfitting", "step": step, **turn.to_dict(), "done": self._act(turn, may_finish)}
        if self.is_best(step):
            self._keep()
        return None

    def _keep(self) -> None:
        """Copy the current state, unless the caller keeps it."""
        asked = self.policy == "finish" and not self.watch.finishing
        if asked and self._go_back is None and self._engine.snapshot_obstacle is None:
            self._copy = None  # free the old one before a new one is made
            self._copy = self._engine.snapshot()

    def _act(self, turn: Turn, may_finish: bool) -> str:
        """Bring the best state back where that is wanted; returns what was done."""
        if self.policy != "finish" or not may_finish:
            return "keep-best"
        self.watch.finishing = True
        copy, self._copy = self._copy, None
        if self._go_back is not None:
            return "finish" if self._go_back(turn.best.step) else "finish_from_here"
        if copy is None:
            return "finish_from_here"
        copy.restore()
        return "finish"

    def state_dict(self) -> dict[str, Any] | None:
        """Plain values; the copy is not among them. None where the evaluations are ignored."""
        return None if self.policy == "ignore" else self.watch.state_dict()

    def load_state_dict(self, state: Mapping[str, Any] | None, finishing: bool) -> None:
        """Go on from what `state_dict` returned, checked before; `finishing`: whether the run is still to end soon."""
        if state is None or self.policy == "ignore":
            return
        self.watch = OverfitWatch.from_state(state)
        if self.watch.finishing and not finishing:
            self.watch.go_on()  # the run had ended, and now goes on for longer
