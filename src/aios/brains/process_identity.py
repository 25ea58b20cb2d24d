"""Whether a process that was started earlier, perhaps by another window, still runs: process numbers get reused."""

from __future__ import annotations

import os
from pathlib import Path

_PROC = Path("/proc")


def birth_of(pid: int) -> str | None:
    """What tells the process apart from a later one of the same number; None where the system does not say.

    On Linux: the start time in clock ticks since boot, field 22 of /proc/PID/stat (proc(5)), and the boot's id.
    """
    fields = _stat_fields(pid)
    return f"{fields[19]} {_boot_id()}" if fields is not None else None


def is_alive(pid: int, birth: str | None) -> bool:
    """Whether process `pid` runs, is no zombie, and was born at `birth` (None: any)."""
    fields = _stat_fields(pid)
    if fields is not None:
        return fields[0] not in ("Z", "X") and birth in (None, f"{fields[19]} {_boot_id()}")
    if _PROC.joinpath("self", "stat").exists():
        return False
    return _accepts_signals(pid)


def _stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on; None where there is no such file."""
    try:
        text = _PROC.joinpath(str(pid), "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()  # the second field, the name, may hold spaces and brackets


def _boot_id() -> str:
    return _PROC.joinpath("sys", "kernel", "random", "boot_id").read_text(encoding="ascii").strip()


def _accepts_signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
