"""Faults at one system call of a training, injected by strace: what Rust and C++ write is hit as well."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from training_process import TIMEOUT, train_args


def strace_or_skip() -> str:
    """The path of a strace that may trace here; skips the test where there is none."""
    found = shutil.which("strace")
    if found is None:
        pytest.skip("strace is not installed: no fault can be injected")
    if subprocess.run([found, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine does not let strace trace processes")
    return found


def train_with_fault(
    folder: Path, calls: str, fault: str, paths: list[Path], *args: str
) -> subprocess.CompletedProcess[str]:
    """A tiny training of the brain `folder`/brain with `fault` (`signal=SIGKILL:when=2`) at `calls` on `paths`."""
    filters = [word for path in paths for word in ("-P", str(path))]
    # Without --seccomp-bpf, which is faster, but under which a signal at the n-th call is never sent.
    options = ["-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", f"inject={calls}:{fault}", *filters]
    command = [strace_or_skip(), *options, sys.executable, "-m", "aios", *train_args(folder, *args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
