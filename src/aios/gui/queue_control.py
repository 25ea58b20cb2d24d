"""Gives queued runs their turn: one after another, when nothing else trains. No Tk here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from aios.brains.brain_list import Brain, State, is_training
from aios.errors import UserError
from aios.gui.background import Background
from aios.gui.form import FormCheck, check_on_disk
from aios.gui.run_queue import QueuedRun, RunQueue
from aios.settings.config import TrainingConfig


class QueueControl:
    """`start(config)` is called for a run whose turn it is; `told()` when the queue is another one."""

    def __init__(
        self, background: Background, start: Callable[[TrainingConfig], None], told: Callable[[], None]
    ) -> None:
        self.queue = RunQueue()
        self._background, self._start, self._told = background, start, told
        self._training: dict[Path, str] = {}
        self._paused: str | None = None
        self.last: Path | None = None
        """The folder of the brain that trained last, or trains; absolute. None: none was seen."""

    @property
    def busy(self) -> bool:
        """Whether something trains, as far as is known: another run has to wait."""
        return bool(self._training)

    @property
    def outlook(self) -> str:
        """What the first in the queue waits for, one sentence."""
        if self._training:
            return f"Queued; the first starts when “{next(iter(self._training.values()))}” has ended."
        if self._paused is not None:
            return f"Queued; “{self._paused}” is paused: continue it, or press “Start now”."
        return "Queued; the first starts in a moment." if self.queue.next is not None else "Queued."

    @property
    def notice(self) -> str | None:
        """Why a run that is started now would have to wait, None: it would not."""
        if not self._training:
            return None
        waiting = len(self.queue.runs)
        behind = f"; {waiting} {'waits' if waiting == 1 else 'wait'} already" if waiting else ""
        return f"“{next(iter(self._training.values()))}” is being trained: this run will wait{behind}."

    def see(self, brain: Brain | None) -> None:
        """Take note of a training that is known from elsewhere."""
        if brain is not None and brain.state is State.RUNNING:
            self.last = brain.folder.absolute()
            self._training[self.last] = brain.name

    def tick(self, brains: Sequence[Brain]) -> None:
        """Start the next run if its turn has come; `brains` are those listed, the one written to last first.

        A run that was paused last keeps the machine for itself.
        """
        before = self.notice
        for brain in brains:
            self.see(brain)
        self._training = {folder: name for folder, name in self._training.items() if is_training(folder)}
        self._paused = brains[0].name if brains and brains[0].state is State.PAUSED else None
        if self.notice != before:
            self._told()
        run = self.queue.next
        its_turn = not self._training and self._paused is None and not self._background.busy("queue")
        if run is not None and its_turn:
            self._check(run, waits=True)

    def add(self, config: TrainingConfig) -> None:
        """Queue a run.

        Raises:
            UserError: as `RunQueue.add`.
        """
        self.queue.add(config)
        self._told()

    def start_now(self, run: QueuedRun) -> None:
        """Start a run of the queue, whatever else trains, if its settings are still good; else pass it over."""
        self._check(run, waits=False)

    def _check(self, run: QueuedRun, waits: bool) -> None:
        self._background.submit("queue", partial(check_on_disk, run.settings), partial(self._begin, run, waits))

    def _begin(self, run: QueuedRun, waits: bool, check: FormCheck) -> None:
        """Start a run that was checked; one that `waits` only if nothing else has begun meanwhile."""
        if waits and self._training:
            return
        if check.config is None:
            self.queue.pass_over(run, check.reason or "Its settings cannot be used any more.")
        elif self.queue.take(run):
            try:
                self._start(check.config)
                self.last = check.config.brain_dir.absolute()
                self._training[self.last] = check.config.brain_name
            except UserError as error:
                self.queue.pass_over(self.queue.add(check.config), str(error))
        self._told()
