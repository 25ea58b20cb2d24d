"""The workers of one run as each of them sees the others; a lone process is a group of one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout, _world

from aios.distributed.environment import WorkerPlace
from aios.distributed.launch_notes import who_is_missing
from aios.errors import LostWorkersError, UserError

MEETING_TIME = timedelta(minutes=3)
"""How long workers try to connect; then they fail, and the launcher starts them once more."""
PATIENCE = timedelta(minutes=30)
"""How long a worker waits for the others where one may take long: to tokenise the data, or to write a checkpoint."""
LAST_BREATH = 0.2
"""Seconds between leaving the group and the end of the process. DDP keeps gloo's threads beyond the group, and one that
lets go of the last collective's tensor while the interpreter ends aborts the process (pytorch#179291)."""
_TIMED_OUT = ("Timed out waiting", "timeout")
_APART = (*_TIMED_OUT, "Connection closed by peer", "Connection reset by peer", "Broken pipe")
"""What gloo and NCCL say when a collective fails because of another worker; they have no exception of their own."""


@dataclass
class Workers:
    """Who takes part. Every method that talks to the others must be called by all of them, in the same order."""

    place: WorkerPlace = field(default_factory=WorkerPlace)
    """Which of them this process is."""
    patience: timedelta = PATIENCE
    """How long this worker waits for the others now."""

    @property
    def rank(self) -> int:
        """Number of this worker, from 0."""
        return self.place.rank

    @property
    def world_size(self) -> int:
        """How many there are."""
        return self.place.world_size

    @property
    def is_main(self) -> bool:
        """Whether this worker is the one that writes log, checkpoints and brain."""
        return self.place.rank == 0

    def sum(self, *values: float) -> list[float]:
        """The sum of each value over all workers, in double precision; the same numbers on every worker."""
        if self.world_size == 1:
            return list(values)
        totals = torch.tensor(values, dtype=torch.float64)  # on the CPU, so over gloo: never waits for a device
        dist.all_reduce(totals)
        return totals.tolist()

    def mean(self, value: float) -> float:
        """The mean of `value` over all workers; not finite on any of them means not finite on all."""
        return self.sum(value)[0] / self.world_size

    def wait(self) -> None:
        """Return when every worker has come here."""
        self.sum(0.0)

    @contextmanager
    def waiting_at_most(self, patience: timedelta) -> Iterator[None]:
        """In the block, collectives in which this worker waits longer for the others fail with `LostWorkersError`."""
        before = self.patience
        self._wait_at_most(patience)
        yield
        self._wait_at_most(before)  # not after an error, which may be that this patience ran out

    def _wait_at_most(self, patience: timedelta) -> None:
        self.patience = patience
        if self.world_size > 1:
            for group in _world.pg_map:  # DeepSpeed has groups of its own
                _set_pg_timeout(patience, group)

    @contextmanager
    def first_of_machine_first(self) -> Iterator[None]:
        """The first worker of each machine runs the block alone, then the others: they find its work done."""
        if self.place.local_rank != 0:
            self.wait()
        yield
        if self.place.local_rank == 0:
            self.wait()


@contextmanager
def joined(place: WorkerPlace | None, device: torch.device | None = None) -> Iterator[Workers]:
    """Take part in the process group that `place` belongs to, for as long as the block runs; None: alone.

    Numbers on the CPU travel over gloo, those on a CUDA device over NCCL, which connects at once if `device` is one.

    Raises:
        UserError: when the workers cannot meet, because their port is taken or the first worker is out of reach.
        LostWorkersError: when one of them died, or hangs for longer than the others wait.
    """
    if place is None:
        yield Workers()
        return
    cuda = torch.cuda.is_available()
    try:
        own = device if device is not None and device.type == "cuda" else None
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=MEETING_TIME, device_id=own)
        _set_pg_timeout(PATIENCE, dist.group.WORLD)
    except dist.DistNetworkError as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(f"The workers cannot meet at {address} ({error}); choose another port or address.") from error
    workers = Workers(place)
    try:
        yield workers
        workers.wait()  # to leave together: gloo may abort a worker whose peers are gone
    except RuntimeError as error:
        if not any(sign in str(error) for sign in _APART):
            raise
        raise LostWorkersError(_what_became_of_the_others(workers, str(error))) from error
    finally:
        dist.destroy_process_group()
        time.sleep(LAST_BREATH)


def _what_became_of_the_others(workers: Workers, said: str) -> str:
    """One sentence about a collective that failed; `said` is what torch says of it."""
    missing = who_is_missing(workers.place)
    names = " and ".join(f"worker {rank}" for rank in missing) or "the others"
    if not any(sign in said for sign in _TIMED_OUT):
        return f"Worker {workers.rank} lost {names}, which died or hung; what it said stands above."
    seconds = workers.patience.total_seconds()
    return (
        f"Worker {workers.rank} waited {seconds:g} s for {names}, which {'hang' if len(missing) != 1 else 'hangs'}; "
        "if there was only much to do, raise --merge-timeout."
    )
