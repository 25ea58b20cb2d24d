"""What a framework is told of the controller."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any

from aios.auto_lr import AutoLR
from aios.auto_lr.events import LogFn, ignore
from aios.integrations.wording import unfinished

logger = logging.getLogger("aios.integrations")


class Tally:
    """Takes the controller's events, says the few that matter, and hands all on to `log_fn`."""

    def __init__(self, log_fn: LogFn | None) -> None:
        self._log = ignore if log_fn is None else log_fn
        self.begin()

    def begin(self) -> None:
        """Count from 0: another run begins, which may go on from a `load_state_dict`."""
        self._seen: Counter[str] = Counter()
        self._found: float | None = None
        self._untold: str | None = None  # why a climb has found no rate; a race may follow at once

    def __call__(self, record: dict[str, Any]) -> None:
        """As `AutoLR`'s `log_fn`."""
        event = record["event"]
        self._seen[event] += 1
        if event != "adaptive_lr_race":
            self._say_none()
        if event in ("adaptive_lr_climb", "adaptive_lr_race"):
            self._take_found(record)
        elif event == "overfitting":
            logger.warning("AutoLR: %s", record["reason"])
        self._log(record)

    def numbers(self, auto: AutoLR, rate: float) -> dict[str, float]:
        """For the framework's log: the `rate` in force, whether it climbs, what was found and took, changes, troubles.

        Of the same names in every framework.
        """
        measured = {
            "learning_rate": rate,
            "climbing": float(auto.climbing),
            "search_steps": float(auto.search_steps),
            "adjustments": float(self._seen["adaptive_lr_adjustment"]),
            "trouble": float(self._seen["adaptive_lr_trouble"]),
        }
        if self._found is not None:
            measured["found_lr"] = self._found
        return {f"auto_lr/{name}": number for name, number in measured.items()}

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for the framework's checkpoint."""
        return {"found": self._found, "seen": dict(self._seen)}

    def load_state_dict(self, state: Mapping[str, Any] | None) -> None:
        """Go on counting from `state_dict()`; None: the checkpoint of an older version has none."""
        if state is not None:
            self._found, self._seen = state["found"], Counter(state["seen"])

    def _take_found(self, record: Mapping[str, Any]) -> None:
        self._untold = None
        if record["lr"] is not None:
            self._found = float(record["lr"])
            logger.info("AutoLR has found the learning rate %.3g: %s", self._found, record["reason"])
            return
        self._untold = record["reason"]
        if record["event"] == "adaptive_lr_race":
            self._say_none()

    def _say_none(self) -> None:
        if self._untold is not None:
            logger.warning("AutoLR has found no learning rate, the optimizer's stays: %s", self._untold)
        self._untold = None


def say_unfinished(auto: AutoLR, setting: str) -> None:
    """One sentence where training is over before the rate has gone down; `setting` is how to say what steps it has."""
    anneal = auto.control.anneal if auto.control is not None else None
    anneals = auto.config.anneal_fraction != 0 if anneal is None else anneal.start < anneal.end
    if auto.begun and anneals and not auto.finished:
        logger.warning(unfinished(auto.end - auto.step_count, setting))
