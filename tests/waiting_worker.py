"""One of two workers that wait for each other step by step: a function for processes of their own."""

from __future__ import annotations

import sys
import time
from datetime import timedelta

from aios.distributed.environment import place_of
from aios.distributed.workers import joined
from aios.errors import LostWorkersError


def wait_on(seconds: float, slow: bool) -> None:
    """Wait for the other `seconds` at most in each of many steps; `slow`: rank 1 is known to take long for one."""
    try:
        with joined(place_of()) as workers, workers.waiting_at_most(timedelta(seconds=seconds)):
            for step in range(10**9):
                workers.wait()
                if step == 5:
                    print("ready", flush=True)
                if step == 6 and slow:
                    with workers.waiting_at_most(timedelta(seconds=60)):
                        workers.wait()
                        time.sleep(2.5 * workers.rank)
                        workers.wait()
                if step == 20 and slow:
                    break
    except LostWorkersError as error:
        print(error, flush=True)
        sys.exit(1)
