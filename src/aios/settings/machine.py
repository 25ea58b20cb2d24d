"""How much memory and computing this machine has, found out without torch."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_GPU_NODES = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
_CORE_SPEED = 2e11
_GPU_SPEED = 1e16
_SIXTEEN_BIT_GAIN = 10


def host_memory() -> int | None:
    """Bytes that processes here may use in all: of the machine, its container or `ulimit -v`, the least of them.

    None where the platform does not say.
    """
    limits = [_physical_memory(), _address_space(), *map(_cgroup_limit, _CGROUP_LIMITS)]
    return min((limit for limit in limits if limit is not None), default=None)


def may_have_gpu() -> bool:
    """False only where there is certainly no GPU: on Linux a driver makes itself known under /dev."""
    return sys.platform != "linux" or any(Path(node).exists() for node in _GPU_NODES)


def fastest_possible(on_gpu: bool, sixteen_bit: bool) -> float:
    """Floating-point operations per second that no device of the kind exceeds: all cores, or one GPU."""
    if on_gpu:
        return _GPU_SPEED
    return (os.cpu_count() or 1) * _CORE_SPEED * (_SIXTEEN_BIT_GAIN if sixteen_bit else 1)


def _physical_memory() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _address_space() -> int | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def _cgroup_limit(path: str) -> int | None:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None  # "max" where there is none
