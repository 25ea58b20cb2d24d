"""`aios` as a child process that has its imports behind it: hundreds of starts from nothing would take most of an hour.

Where the start itself or a terminal to write to matters, a test uses `subprocess`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# How a child is forked is the campaign's.
from faults.forking import Child, Command


class ForkedAios(Child):
    """`aios ARGS`, started in `folder` with a file or terminal `stdin`; with the part of `subprocess.Popen` in use."""

    def __init__(self, args: Sequence[str], folder: Path | None = None, stdin: str | Path = os.devnull) -> None:
        self.args = [sys.executable, "-m", "aios", *args]
        self._says = tempfile.TemporaryDirectory(prefix="aios-says-")
        out, err = (str(Path(self._says.name) / name) for name in ("out", "err"))
        super().__init__(Command(list(args), str(folder or Path.cwd()), dict(os.environ), out, err, str(stdin)))

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; TimeoutExpired where it does not."""
        code = self.join(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it has said, out and err, once it has ended."""
        self.wait(timeout)
        return self.said()

    def send_signal(self, number: int) -> None:
        """Send a signal; one that has ended does not mind."""
        self.send(number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send(signal.SIGTERM)
