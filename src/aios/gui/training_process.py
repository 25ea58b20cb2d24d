"""A training as a child process in a group of its own, so that it goes on without the window and is found again."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from aios.brains.brain_list import Brain, State, read_brain
from aios.brains.printed_output import OUTPUT_FILE, open_output
from aios.brains.process_identity import birth_of
from aios.brains.session_file import SessionFile, read_session
from aios.errors import UserError
from aios.file_names import STOP_FILE
from aios.files import replace_file
from aios.run_view.reading import Outlines
from aios.runs.lock import holder_of, refusal
from aios.runs.stop_file import Request, StopFile
from aios.settings.config import TrainingConfig


def training_arguments(config: TrainingConfig, steps: int | None = None) -> list[str]:
    """What follows `aios` on the command line that trains with `config`.

    A flag left out on resume means "as that run had it", not the default: `steps`, if given, is always spelt out.
    """
    args = [arg for arg in config.to_cli_args() if steps is None or not arg.startswith("--steps=")]
    return ["hrm-hf", "train", *args, *([f"--steps={steps}"] if steps is not None else [])]


def shown_command(arguments: list[str]) -> str:
    """The command as somebody would type it in a shell."""
    return shlex.join(["aios", *arguments])


class TrainingProcess:
    """One training, started here or found: what it is doing, and how it is asked to stop."""

    def __init__(
        self, brain_dir: Path, child: subprocess.Popen[bytes] | None = None, session: SessionFile | None = None
    ) -> None:
        self.brain_dir = brain_dir
        self._child, self._session = child, session
        self._outlines = Outlines()

    @classmethod
    def start(cls, config: TrainingConfig, steps: int | None = None) -> TrainingProcess:
        """Start training with `config`, up to `steps` where that is to be told to a resumed run.

        Raises:
            UserError: when the process or its files cannot be made, or another process trains the brain.
        """
        folder = config.brain_dir
        if holder_of(folder) is not None:
            raise UserError(refusal(folder))
        command = [sys.executable, "-m", "aios", *training_arguments(config, steps)]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            config.watched_stop_file.take_away()  # a request to a run that had already ended
            output = folder / OUTPUT_FILE
            child = _spawn(command, output)
        except OSError as error:
            raise UserError(
                f"The training cannot be started in {folder} ({error.strerror}); free the folder."
            ) from error
        session = SessionFile(
            pid=child.pid,
            birth=birth_of(child.pid),
            started=time.time(),
            command=command,
            log=str(config.log_path.absolute()),
            stop_file=str(config.stop_path.absolute()),
            output=str(output.absolute()),
            steps=steps or config.steps,
        )
        session.save(folder)
        return cls(folder, child, session)

    def look(self) -> Brain | None:
        """What the training is doing now; None where nothing of it is left on disk."""
        if self._child is not None:
            self._child.poll()  # so that an ended child does not stay a zombie
        brain = read_brain(self.brain_dir, self._outlines, self._session)
        if brain is not None and brain.session is not None:
            self._session = brain.session
            if self._session.alive and read_session(self.brain_dir) is None:
                # Its folder was moved or deleted: the training makes it anew, and what it is known by belongs there.
                with suppress(OSError):  # where nothing can be written, what is known here has to do
                    self._session.save(self.brain_dir)
        return brain

    def ask(self, what: str) -> None:
        """Ask it to `pause` or `stop` (it saves and ends) or to `finish` (a short anneal and a regular end).

        Raises:
            UserError: when the request cannot be written.
        """
        brain = self.look()
        if brain is None or brain.state is not State.RUNNING:
            return  # it ended by itself in the meantime; a stop file would stop the next run
        stop_file = Path(brain.session.stop_file) if brain.session is not None else self.brain_dir / STOP_FILE
        if stop_file.absolute() != self.brain_dir.absolute() / STOP_FILE:
            StopFile(stop_file, ours=False).check()  # the session may be a stranger's: no document is replaced
        request = Request.FINISH.content if what == "finish" else b""
        try:
            if brain.session is not None:
                self._note(brain.session, what)
            replace_file(stop_file, lambda file: file.write(request), durable=False)  # never seen half written
        except OSError as error:
            raise UserError(
                f"{stop_file} cannot be written ({error.strerror}); stop the training in its terminal."
            ) from error

    def kill(self) -> None:
        """End it and its workers at once, without saving."""
        brain = self.look()
        if brain is None or brain.session is None or not brain.session.alive:
            return
        self._note(brain.session, "kill")
        os.killpg(brain.session.pid, signal.SIGKILL)

    def _note(self, session: SessionFile, asked: str) -> None:
        """Keep beside the brain what was asked, for all windows."""
        asking = replace(session, asked=asked)
        asking.save(self.brain_dir)
        self._session = asking


def _spawn(command: list[str], output: Path) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, printing into `output` alone."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "400"}
    with open_output(output, command) as stream:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
