"""A brain's answer as a child process, `aios hrm-hf generate`: its text as it comes, its end, its error. No Tk here."""

from __future__ import annotations

import codecs
import os
import subprocess
import sys
import tempfile
from typing import IO

from aios.brains.brain_list import Brain, State
from aios.brains.printed_output import error_sentence
from aios.errors import UserError
from aios.gui.wording import in_window_words
from aios.runs.brain import checkpoint_step, list_checkpoints, read_card
from aios.settings.answering import Answering

_CHUNK = 65536
_NICENESS = 5  # a training goes on beside it


def answer_arguments(brain: Brain, how: Answering) -> list[str]:
    """What follows `aios` on the command line that continues the text on standard input as `brain` would.

    Beside a training it computes on the CPU: that run may need all of the GPU's memory.
    """
    return [
        "hrm-hf",
        "generate",
        f"--bundle-dir={brain.folder.parent}",
        f"--brain-name={brain.name}",
        f"--max-new-tokens={how.max_new_tokens}",
        f"--temperature={how.temperature}",
        f"--device={'cpu' if brain.state is State.RUNNING else 'auto'}",
        "--prompt=-",
    ]


def answering_step(brain: Brain) -> int | None:
    """The step of the weights that answer: of a run that goes on its newest checkpoint, else of those it shows.

    None while there are none.
    """
    checkpoints = list_checkpoints(brain.folder)
    card = read_card(brain.folder) if brain.state is not State.RUNNING else None
    if card is not None:
        return card.trained_steps
    return checkpoint_step(checkpoints[0]) if checkpoints else None


class AnswerProcess:
    """One answer on its way; no call waits for it."""

    def __init__(self, brain: Brain, prompt: str, how: Answering) -> None:
        """Start it.

        Raises:
            UserError: when the process cannot be started.
        """
        self.problem: str | None = None
        """Once it has ended: what went wrong, one sentence."""
        self.remark = ""
        """Once it has ended: what it said beside the text."""
        self.ended = False
        """Whether no more text comes."""
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._said = b""
        with tempfile.TemporaryFile() as given:  # a pipe would make the window wait until a long prompt is read
            given.write(prompt.encode(errors="replace"))
            given.seek(0)
            try:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "aios", *answer_arguments(brain, how)],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"},
                )
            except OSError as error:
                raise UserError(f"The brain cannot be asked ({error.strerror}); close other programs.") from error
        for stream in self._streams():
            os.set_blocking(stream.fileno(), False)
        os.setpriority(os.PRIO_PROCESS, self._child.pid, _NICENESS)

    def _streams(self) -> tuple[IO[bytes], IO[bytes]]:
        """Its text, and what it says beside it."""
        assert self._child.stdout is not None
        assert self._child.stderr is not None
        return self._child.stdout, self._child.stderr

    def poll(self) -> str:
        """What has come since the last look."""
        if self.ended:
            return ""
        has_ended = self._child.poll() is not None  # asked first: what it wrote before is there to be read
        text, said = map(_read, self._streams())
        self._said += said
        if has_ended and not text and not said:
            self._end()
            self._judge()
        return self._decoder.decode(text, final=self.ended)

    def cancel(self) -> None:
        """End it at once; what has come of the text stays."""
        if not self.ended:
            self._child.kill()
            self._child.wait()
            self._end()

    def _end(self) -> None:
        self.ended = True
        for stream in self._streams():
            stream.close()

    def _judge(self) -> None:
        said = self._said.decode("utf-8", errors="replace")
        if self._child.returncode == 0:
            self.remark = in_window_words(" ".join(said.split()))
        else:
            sentence = (
                error_sentence(said.splitlines())
                or f"The process ended with code {self._child.returncode} and no word."
            )
            self.problem = in_window_words(sentence)


def _read(stream: IO[bytes]) -> bytes:
    """What is there of it, up to a limit; nothing where it would have to be waited for."""
    try:
        return os.read(stream.fileno(), _CHUNK)
    except BlockingIOError:
        return b""
