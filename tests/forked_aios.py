"""`aios` as a child process that has its imports behind it: hundreds of starts from nothing would take most of an hour.

Where the start itself or a terminal to write to matters, a test uses `subprocess`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# How a child is forked is the campaign's.
from faults.forking import Command, fork


class ForkedAios:
    """`aios ARGS`, started in `folder` with a file or terminal `stdin`; with the part of `subprocess.Popen` in use."""

    def __init__(self, args: Sequence[str], folder: Path | None = None, stdin: str | Path = os.devnull) -> None:
        self.args = [sys.executable, "-m", "aios", *args]
        self._says = tempfile.TemporaryDirectory(prefix="aios-says-")
        self._files = [Path(self._says.name) / name for name in ("out", "err")]
        out, err = map(str, self._files)
        self._process = fork(Command(list(args), str(folder or Path.cwd()), dict(os.environ), out, err, str(stdin)))

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """Exit code, None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended; TimeoutExpired where it does not."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """All that it has said, out and err, once it has ended."""
        self.wait(timeout)
        out, err = (file.read_text("utf-8") if file.exists() else "" for file in self._files)
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal; one that has ended does not mind."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)
