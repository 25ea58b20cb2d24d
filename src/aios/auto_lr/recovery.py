"""Carries out what the trouble monitor decides: log the skip, cut or raise the LR, rewind, stop with advice."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from aios.auto_lr.adaptive_lr import LRDecision
from aios.auto_lr.events import LogFn, trouble
from aios.auto_lr.grouped_scheduler import Rates
from aios.auto_lr.restoration import Restoration
from aios.auto_lr.saved_state import MAPPING, check_state
from aios.auto_lr.scheduler import AutoLRScheduler
from aios.auto_lr.trouble import Rung, TroubleMonitor, Verdict
from aios.errors import RunError

SNAPSHOT_EVERY = 50
"""Optimizer steps between in-memory snapshots of a healthy run."""


class Restorable(Protocol):
    """A copy of a training state."""

    def restore(self) -> None:
        """Bring it back; may be called again and again."""


class Kept(NamedTuple):
    """What a rewind goes back to."""

    snapshot: Restorable
    """The training state."""
    monitor: dict[str, Any]
    """State of the trouble monitor."""
    rates: Rates
    """Learning rates in force."""


class Recovery:
    """Watches every step; keeps the last good snapshot in memory.

    `take_snapshot` copies the training state (None: it cannot be copied, and a rewind is only a cut); `log_fn`
    receives one event per rung taken. All inputs of a decision are plain numbers that ranks can agree on beforehand,
    and every action is one that ranks can take together.
    """

    def __init__(
        self,
        scheduler: AutoLRScheduler,
        monitor: TroubleMonitor,
        take_snapshot: Callable[[], Restorable] | None,
        log_fn: LogFn,
    ) -> None:
        self.scheduler = scheduler
        self.monitor = monitor
        self.restoration = Restoration()
        """What passing trouble took and is owed back."""
        self._take_snapshot = take_snapshot
        self._log = log_fn
        self._kept: Kept | None = None

    @property
    def skip_above(self) -> float:
        """Gradient norm above which the next update is to be skipped."""
        return self.monitor.skip_above

    @property
    def healthy(self) -> bool:
        """Whether the current state would be a good one to come back to."""
        return self.monitor.healthy

    def keep_snapshot(self) -> None:
        """Copy the training state now: where training begins, goes on or has been given other weights."""
        if self._take_snapshot is not None:
            self._kept = Kept(self._take_snapshot(), self.monitor.state_dict(), self.scheduler.rates())

    def keep_checkpoint(self) -> None:
        """Copy the training state of a checkpoint, unless in trouble: a run that is resumed there has no other."""
        if self.healthy or self.monitor.untroubled:
            self.keep_snapshot()

    def after_step(self, step: int, loss: float, grad_norm: float, skip_above: float, may_keep: bool = True) -> None:
        """Look at one step, whose update was skipped above `skip_above`, and act.

        `may_keep`: whether the current state may take the place of the one that is kept, where it is healthy.

        Raises:
            RunError: when nothing more can be done; its message is the advice.
        """
        skipped = not (math.isfinite(loss) and grad_norm <= skip_above)
        verdict = self.monitor.observe(step, loss, grad_norm, skipped)
        if verdict.reason:
            self._log(trouble(step, verdict.rung.value, verdict.reason, verdict.numbers))
        if verdict.rung is not Rung.NONE:
            self._act(step, verdict)
        self._give_back(step, verdict)
        if may_keep and verdict.rung is Rung.NONE and step % SNAPSHOT_EVERY == 0 and self.healthy:
            self.keep_snapshot()

    def _act(self, step: int, verdict: Verdict) -> None:
        rung, reason = verdict.rung, verdict.reason
        if rung is Rung.CUT:
            self.scheduler.intervene(LRDecision.SPIKE_DECREASE, "trouble_decrease", reason)
        elif rung is Rung.RAISE:
            self.scheduler.intervene(LRDecision.INCREASE, "gradient_increase", reason)
        elif rung is Rung.REWIND:
            self._rewind(step, reason)
        elif rung is Rung.STOP:
            if self._kept is not None:
                self._kept.snapshot.restore()  # what is saved when the run ends is the last good state
            raise RunError(verdict.advice or reason)

    def _give_back(self, step: int, verdict: Verdict) -> None:
        rates = self.scheduler.rates()
        if verdict.of_batch:
            self.restoration.note_bad_batch()
            return
        owed = self.restoration.after_bad_batch(rates, self.monitor.calm)
        if owed is None:
            passing = verdict.rung in (Rung.SKIP, Rung.CUT)
            owed = self.restoration.observe(step, passing, self.healthy, rates)
        if owed is not None:
            self.scheduler.restore(owed, "trouble_over_increase", "trouble_over (back to the LR of before)")

    def _rewind(self, step: int, reason: str) -> None:
        self.go_back(step)
        self.scheduler.intervene(LRDecision.SPIKE_DECREASE, "rewind_decrease", reason)

    def go_back(self, step: int) -> bool:
        """Bring back the state that is kept; returns whether there is one. What trouble took is not given back."""
        self.restoration.forfeit(step)
        if self._kept is None:
            return False
        self._kept.snapshot.restore()
        self.monitor.rewound(self._kept.monitor)
        self.scheduler.lower_to(self._kept.rates)
        return True

    def state_dict(self) -> dict[str, Any]:
        """Plain values; the snapshot is not among them, it is taken anew on resume."""
        return {"monitor": self.monitor.state_dict(), "restoration": self.restoration.state_dict()}

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `load_state_dict` takes."""
        saved = check_state("recovery state", state, _STATE, may_lack=("restoration",))
        TroubleMonitor.check_state(saved["monitor"])
        if "restoration" in saved:
            Restoration.check_state(saved["restoration"])

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError, before any change, for anything else."""
        self.check_state(state)
        self.monitor.load_state_dict(state["monitor"])
        if "restoration" in state:  # not in checkpoints from before it
            self.restoration.load_state_dict(state["restoration"])


_STATE = {"monitor": MAPPING, "restoration": MAPPING}
