"""No worker outlives the process that started it, also one that is stopped or hangs.

On Linux the kernel itself sends a signal to the children of a process that dies, however it does: SIGKILL to
independent workers, whose work is safe up to the last merge; SIGCONT to the workers of one model, so that those that
were stopped wake and all finish their step together, save and end. Elsewhere a stopped worker stays as it is.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

STOP_SECONDS = 600
"""How long workers may take to finish their step and save when asked to stop; then they are killed."""
_LOOK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Have this process killed when its parent dies, or now where it has."""
    _signal_on_death_of(parent, signal.SIGKILL)


def end_after(launcher: int) -> None:
    """Have this process woken when its launcher dies, and killed if it has not ended `STOP_SECONDS` later."""
    _signal_on_death_of(launcher, signal.SIGCONT)
    threading.Thread(target=_outlive_shortly, args=(launcher,), daemon=True).start()


def _signal_on_death_of(parent: int, number: signal.Signals) -> None:
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os.kill(os.getpid(), number)


def _outlive_shortly(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(_LOOK_SECONDS)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)
