"""Checks the form while it is typed in: its values at once, files and folders a moment later, beside the window."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from aios.gui.background import Background
from aios.gui.form import FormCheck, FormModel, check_on_disk
from aios.settings.config import TrainingConfig

_PAUSE_SECONDS = 0.2
"""Without a change, before the disk is asked."""


class FormChecks:
    """What is known of the form's settings; `told()` is called when more is known."""

    def __init__(self, model: FormModel, background: Background, told: Callable[[], None]) -> None:
        self._model, self._background, self._told = model, background, told
        self._own = model.check()
        self._disk: FormCheck | None = None
        self._due = time.monotonic()
        self._asked: tuple[dict[str, Any], Callable[[TrainingConfig], None]] | None = None
        self._left: dict[str, Any] = {}

    def changed(self) -> None:
        """The form, or what is on disk, is not what it was."""
        self._own, self._disk = self._model.check(), None
        self._due = time.monotonic() + _PAUSE_SECONDS
        self._told()

    def tick(self) -> None:
        """Ask the disk, if that is due."""
        if self._disk is None and time.monotonic() >= self._due and not self._background.busy("check"):
            values = self._model.values()
            self._background.submit("check", partial(check_on_disk, values), partial(self._take, values))

    def _take(self, values: dict[str, Any], check: FormCheck) -> None:
        if values == self._model.values():
            self._disk, self._left = check, {}
            self._told()
            self._answer()

    def ask(self, take: Callable[[TrainingConfig], None]) -> None:
        """Give `take` the settings once the disk was asked about them; not if they change first, or cannot be used.

        Settings that a `take` has just left behind are not waited for: a key pressed twice asks once.
        """
        if self._disk is not None or self._model.values() != self._left:
            self._asked = self._model.values(), take
            self._answer()

    def _answer(self) -> None:
        if self._disk is not None and self._asked is not None:
            (values, take), self._asked = self._asked, None
            if self._disk.config is not None and values == self._model.values():
                take(self._disk.config)
                self._left = self._model.values()

    @property
    def current(self) -> FormCheck:
        """The most that is known."""
        return self._disk or self._own

    @property
    def why_not(self) -> str | None:
        """Why training cannot start, None when it can."""
        if self.current.reason is not None:
            return self.current.reason
        return "Checking the files …" if self._disk is None else None
