"""Gives back the learning rate that trouble from outside took; standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.grouped_scheduler import Rates
from aios.auto_lr.saved_state import COUNT, FLAG, RATE, by_name, check_state, optional, record

TRUST = 128
"""Optimizer steps after a restoration within which new trouble is held against the rate."""


class Restoration:
    """Remembers the rates before trouble and gives them back once it has passed.

    If trouble returns within `TRUST` steps, the rate is to blame and is not restored. A batch that gives no finite
    numbers where the next one, under the same weights, is as usual says nothing about the rate, however often.
    """

    def __init__(self) -> None:
        self._calm: Rates | None = None
        self._owed: Rates | None = None
        self._restored_at: int | None = None
        self._before: Rates | None = None  # of the latest step that was not a bad batch
        self._bad_batch = False  # whether there was one since

    def observe(self, step: int, trouble: bool, healthy: bool, rates: Rates) -> Rates | None:
        """The rates to go back to after optimizer step `step`; None to keep the current ones."""
        if trouble:
            trusted = self._restored_at is None or step - self._restored_at > TRUST
            if self._owed is None and trusted and self._calm is not None and rates.lr < self._calm.lr:
                self._owed = self._calm
        elif healthy:
            owed, self._owed = self._owed, None
            if owed is not None and owed.lr > rates.lr:
                self._restored_at, self._calm = step, owed
                return owed
            self._calm = rates
        return None

    def note_bad_batch(self) -> None:
        """A step gave no finite numbers, and the weights have not moved."""
        self._bad_batch = True

    def after_bad_batch(self, rates: Rates, calm: bool) -> Rates | None:
        """The rates to go back to after a step with finite numbers; None to keep the current ones."""
        before = self._before
        if self._bad_batch and not calm:
            return None
        bad, self._bad_batch, self._before = self._bad_batch, False, rates
        if not bad or before is None or before.lr <= rates.lr:
            return None
        self._before = before
        return before

    def forfeit(self, step: int) -> None:
        """The trouble needed a rewind: blame the rate, and restore nothing."""
        self._owed, self._calm, self._restored_at = None, None, step
        self._before, self._bad_batch = None, False

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        rates = {"calm": self._calm, "owed": self._owed, "before": self._before}
        plain = {name: r._asdict() if r is not None else None for name, r in rates.items()}
        return {**plain, "restored_at": self._restored_at, "bad_batch": self._bad_batch}

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `load_state_dict` takes."""
        check_state("restoration state", state, _STATE, may_lack=("before", "bad_batch"))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError, before any change, for anything else."""
        self.check_state(state)
        self._calm, self._owed, self._before = (
            Rates(kept["lr"], dict(kept["scales"])) if kept is not None else None
            for kept in map(state.get, ("calm", "owed", "before"))
        )
        self._restored_at, self._bad_batch = state["restored_at"], state.get("bad_batch", False)


_RATES = record({"lr": RATE, "scales": by_name(RATE)})
_STATE = {
    **dict.fromkeys(("calm", "owed", "before"), optional(_RATES)),
    "restored_at": optional(COUNT),
    "bad_batch": FLAG,
}
