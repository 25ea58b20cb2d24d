"""Faults of a training: at one system call, injected by strace (what Rust and C++ write is hit as well), or a limit."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from faults import strace
from forked_aios import ForkedAios
from training_process import TIMEOUT, train_args


def strace_or_skip() -> None:
    """Skips the test where there is no strace that may trace."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: no fault can be injected")
    if subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let strace trace processes")


def train_traced(
    folder: Path, options: Sequence[str], trace: str | Path, *args: str
) -> subprocess.CompletedProcess[str]:
    """A tiny training of the brain `folder`/brain under strace, with its `options`, recorded in the file `trace`."""
    strace_or_skip()
    process = ForkedAios(train_args(folder, *args), held=True)
    tracer = strace.attach(process, folder, options, Path(trace))
    out, err = process.communicate(TIMEOUT)
    tracer.wait()
    assert process.returncode is not None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def train_with_fault(
    folder: Path, calls: str, fault: str, paths: list[Path], *args: str
) -> subprocess.CompletedProcess[str]:
    """A tiny training of the brain `folder`/brain with `fault` (`signal=SIGKILL:when=2`) at `calls` on `paths`."""
    filters = [word for path in paths for word in ("-P", str(path))]
    # Without --seccomp-bpf, which is faster, but under which a signal at the n-th call is never sent.
    options = ["-e", f"trace={calls}", "-e", f"inject={calls}:{fault}", *filters]
    return train_traced(folder, options, os.devnull, *args)


def limit_files() -> None:
    """As `ulimit -f` does: no file may grow beyond 200 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
