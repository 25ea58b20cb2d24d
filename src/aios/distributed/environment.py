"""What launchers tell a worker through the environment; no torch here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

PARENT = "AIOS_PARENT"
"""Environment variable: the process that started this worker and watches over it, by number."""
_PARENT_AT_START = os.getppid()


@dataclass(frozen=True)
class WorkerPlace:
    """Which of the workers this process is."""

    rank: int = 0
    """Number among all workers of the run."""
    world_size: int = 1
    """Workers of the run."""
    local_rank: int = 0
    """Number among the workers of this machine."""
    local_world_size: int = 1
    """Workers of this machine."""
    restarts: int = 0
    """Times the launcher has started the workers again."""
    launcher: int | None = None
    """The launcher that watches over this process, which must not go on without it; None: nobody does."""


def place_of(environ: Mapping[str, str] = os.environ) -> WorkerPlace | None:
    """This process's place among the workers that `torchrun` (or our own launcher) started; None outside of it."""
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return None
    return WorkerPlace(
        rank=int(environ["RANK"]),
        world_size=int(environ["WORLD_SIZE"]),
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        local_world_size=int(environ.get("LOCAL_WORLD_SIZE", "1")),
        restarts=int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        launcher=parent_of(environ) if "TORCHELASTIC_RUN_ID" in environ else None,
    )


def parent_of(environ: Mapping[str, str] = os.environ) -> int:
    """The process that started this one: as it told us, which also holds where it has died since; else as we saw it."""
    return int(environ.get(PARENT, _PARENT_AT_START))
