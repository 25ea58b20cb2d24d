"""Gives back the learning rate that trouble from outside took; standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.grouped_scheduler import Rates
from aios.auto_lr.saved_state import COUNT, RATE, by_name, check_state, optional, record

TRUST = 128
"""Optimizer steps after a restoration within which new trouble is held against the rate."""


class Restoration:
    """Remembers the rates before trouble and gives them back once it has passed.

    A bad batch says nothing about the rate. If trouble returns within `TRUST` steps, the rate is to blame and is not
    restored.
    """

    def __init__(self) -> None:
        self._calm: Rates | None = None
        self._owed: Rates | None = None
        self._restored_at: int | None = None

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

    def forfeit(self, step: int) -> None:
        """The trouble needed a rewind: blame the rate, and restore nothing."""
        self._owed, self._calm, self._restored_at = None, None, step

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        rates = {"calm": self._calm, "owed": self._owed}
        plain = {name: r._asdict() if r is not None else None for name, r in rates.items()}
        return {**plain, "restored_at": self._restored_at}

    @staticmethod
    def check_state(state: object) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `load_state_dict` takes."""
        check_state("restoration state", state, _STATE)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; ValueError, before any change, for anything else."""
        self.check_state(state)
        self._calm, self._owed = (
            Rates(state[name]["lr"], dict(state[name]["scales"])) if state[name] is not None else None
            for name in ("calm", "owed")
        )
        self._restored_at = state["restored_at"]


_RATES = record({"lr": RATE, "scales": by_name(RATE)})
_STATE = {"calm": optional(_RATES), "owed": optional(_RATES), "restored_at": optional(COUNT)}
