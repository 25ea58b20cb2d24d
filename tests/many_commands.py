"""Many `aios` commands in one go: one process imports the command line and forks for each of them.

A command that is refused before torch is imported takes some 20 ms this way. Run as a script it reads a JSON list of
argument lists and writes a JSON list of results; `run_many` does both.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

SECONDS = 10
"""What one command may take; SIGALRM ends it then."""


@dataclass(frozen=True)
class Done:
    """How one command ended."""

    args: list[str]
    returncode: int
    """As the shell has it; negative: killed by that signal."""
    stderr: str


def run_many(commands: Sequence[Sequence[str]]) -> list[Done]:
    """Run `aios ARGS` for each ARGS of `commands`, one after another."""
    answer = subprocess.run(
        [sys.executable, __file__], input=json.dumps(list(map(list, commands))), capture_output=True, text=True,
        timeout=60 + SECONDS * len(commands), check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return [Done(**result) for result in json.loads(answer.stdout)]


def _run(args: list[str]) -> Done:
    with tempfile.TemporaryFile("w+b") as stderr:
        child = os.fork()
        if child == 0:
            _become(args, stderr.fileno())
        _, status = os.waitpid(child, 0)
        stderr.seek(0)
        text = stderr.read().decode("utf-8", "backslashreplace")
    return Done(args, os.waitstatus_to_exitcode(status), text)


def _become(args: list[str], stderr: int) -> NoReturn:
    """Be `aios ARGS`, in a forked child, to the end."""
    from aios.cli.app import main

    signal.alarm(SECONDS)
    os.dup2(stderr, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["aios", *args]
    main()
    sys.exit(0)  # as any end of `main` it unwinds this copy of the process to its end


if __name__ == "__main__":
    from faults.parsed import parse_once

    parse_once()
    gc.freeze()  # what all have in common none need go through
    print(json.dumps([vars(_run(args)) for args in json.load(sys.stdin)]))
