"""`aios` as a child process that has its imports behind it: hundreds of starts from nothing would take most of an hour.

Where the start itself matters, a test uses `subprocess`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

# How a child is forked is the campaign's.
from faults.forking import Child, Command


class ForkedAios(Child):
    """`aios ARGS`, started in `folder` with a file or terminal `stdin`; with the part of `subprocess.Popen` in use.

    What it says goes to the terminal `says`, where one is given. `prepare`, of a module, is called in the process
    first. One that is `held` is stopped before it begins.
    """

    def __init__(
        self,
        args: Sequence[str],
        folder: Path | None = None,
        stdin: str | Path = os.devnull,
        says: str | None = None,
        prepare: Callable[[], None] | None = None,
        held: bool = False,
    ) -> None:
        self.args = [sys.executable, "-m", "aios", *args]
        self._says = tempfile.TemporaryDirectory(prefix="aios-says-")
        out, err = (says or str(Path(self._says.name) / name) for name in ("out", "err"))
        where, env = str(folder or Path.cwd()), dict(os.environ)
        super().__init__(Command(list(args), where, env, out, err, str(stdin), prepare, held))

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
