"""What a framework is told of the controller, and the controller of a framework's evaluations."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

from aios.auto_lr import AutoLR
from aios.auto_lr.events import LogFn, ignore

logger = logging.getLogger("aios.integrations")


class Tally:
    """Takes the controller's events, says the few that matter, and hands all on to `log_fn`."""

    def __init__(self, log_fn: LogFn | None) -> None:
        self._log = log_fn or ignore
        self._seen: Counter[str] = Counter()
        self._found: float | None = None

    def __call__(self, record: dict[str, Any]) -> None:
        """As `AutoLR`'s `log_fn`."""
        event = record["event"]
        self._seen[event] += 1
        if event in ("adaptive_lr_climb", "adaptive_lr_race"):
            self._say_found(record)
        elif event == "overfitting":
            logger.warning("AutoLR: %s", record["reason"])
        self._log(record)

    def numbers(self, auto: AutoLR) -> dict[str, float]:
        """For the framework's log: whether the rate is still climbing, what was found, how often it was changed, ..."""
        told = {
            "climbing": float(auto.climbing),
            "search_steps": float(auto.search_steps),
            "adjustments": float(self._seen["adaptive_lr_adjustment"]),
            "trouble": float(self._seen["adaptive_lr_trouble"]),
        }
        if self._found is not None:
            told["found_lr"] = self._found
        return {f"auto_lr/{name}": number for name, number in told.items()}

    def _say_found(self, record: dict[str, Any]) -> None:
        if record["lr"] is None:
            logger.warning("AutoLR has found no learning rate, the optimizer's stays: %s", record["reason"])
            return
        self._found = float(record["lr"])
        logger.info("AutoLR has found the learning rate %.3g: %s", self._found, record["reason"])
