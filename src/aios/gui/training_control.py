"""The training that the window's controls belong to: started, found again, asked, watched. No Tk here."""

from __future__ import annotations

from pathlib import Path

from aios.brains.brain_list import Brain, State
from aios.gui.training_process import TrainingProcess, shown_command, training_arguments
from aios.settings.config import TrainingConfig

_WAITING = {"pause": "saving …", "stop": "saving …", "finish": "finishing …"}


class TrainingControl:
    """At most one training at a time; `brain` is what was last seen of it."""

    def __init__(self) -> None:
        self.brain: Brain | None = None
        """How it stands; None: no training is under control."""
        self.command = ""
        """The command line it was started with, as one would type it; empty: not known."""
        self._process: TrainingProcess | None = None
        self._asked: str | None = None

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self.brain is not None and self.brain.state is State.RUNNING

    @property
    def waiting(self) -> str | None:
        """What it was asked for and has not done yet, None: nothing."""
        return _WAITING.get(self._asked or "") if self.running else None

    def start(self, config: TrainingConfig, steps: int | None = None) -> None:
        """Start training with `config`; `steps` as in `training_arguments`.

        Raises:
            UserError: when it cannot be started.
        """
        self._process = TrainingProcess.start(config, steps)
        self.command = shown_command(training_arguments(config, steps))
        self._asked = None
        self.refresh()

    def resume(self, steps: int | None = None) -> None:
        """Go on from the newest checkpoint, up to `steps` (None: as far as the run was asked for)."""
        if self.brain is not None and not self.running:
            asked = steps if steps is not None else self.brain.steps
            self.start(resume_config(self.brain, asked), asked)

    def attach(self, folder: Path | None) -> None:
        """Take over the training of the brain in `folder`, running or not; None: let go of any."""
        self._process = TrainingProcess(folder) if folder is not None else None
        self._asked = None
        self.command = ""
        self.refresh()
        session = self.brain.session if self.brain is not None else None
        if session is not None:
            self._asked = session.asked
            self.command = shown_command(session.command[3:])  # behind `python -m aios`

    def ask(self, what: str) -> None:
        """Ask it to `pause`, `stop` or `finish`, or `kill` it.

        Raises:
            UserError: when the request cannot be written.
        """
        if self._process is None or not self.running:
            return
        if what == "kill":
            self._process.kill()
        else:
            self._process.ask(what)
        self._asked = what
        self.refresh()

    def refresh(self) -> None:
        """Look how it stands."""
        self.brain = self._process.look() if self._process is not None else None


def resume_config(brain: Brain, steps: int | None) -> TrainingConfig:
    """The config that continues a brain, up to `steps` if given; everything else stays as that run had it.

    Raises:
        UserError: for steps that cannot be.
    """
    places = {"bundle_dir": str(brain.folder.parent), "brain_name": brain.name}
    return TrainingConfig(**places, resume=True, **({"steps": steps} if steps is not None else {}))  # type: ignore[arg-type]
