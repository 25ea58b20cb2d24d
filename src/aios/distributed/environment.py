"""What torch's launchers tell a worker through the environment; no torch here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class WorkerPlace:
    """Which of the workers this process is."""

    rank: int = 0
    """Number among all workers of the run."""
    world_size: int = 1
    """Workers of the run."""
    local_rank: int = 0
    """Number among the workers of this machine."""
    restarts: int = 0
    """Times the launcher has started the workers again."""
    launched: bool = False
    """Whether a launcher watches over this process, so that it must not go on without it."""


def place_of(environ: Mapping[str, str] = os.environ) -> WorkerPlace | None:
    """This process's place among the workers that `torchrun` (or our own launcher) started; None outside of it."""
    if "RANK" not in environ or "WORLD_SIZE" not in environ:
        return None
    return WorkerPlace(
        rank=int(environ["RANK"]),
        world_size=int(environ["WORLD_SIZE"]),
        local_rank=int(environ.get("LOCAL_RANK", "0")),
        restarts=int(environ.get("TORCHELASTIC_RESTART_COUNT", "0")),
        launched="TORCHELASTIC_RUN_ID" in environ,
    )
