"""What the ladder for trouble knows of a run, besides its windows of numbers, and the form in which it is saved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aios.auto_lr.saved_state import COUNT, between, one_of, optional, record, series

TINY = 1e-38
"""Least gradient norm: one of exactly zero still needs a logarithm."""
HUGE = 1e30
"""Above this is as good as infinite: sums and differences must not overflow."""


@dataclass(frozen=True)
class Normal:
    """What the loss and the gradient were like before trouble."""

    level: float
    """Loss to be expected: median of the last ones, corrected for the trend."""
    sigma: float
    """Robust sigma of the detrended loss; at least such that `loss_sigmas` of them are the least jump that counts."""
    log_grad: float
    """Median log gradient norm."""


@dataclass(frozen=True)
class Episode:
    """A spell of trouble and when to judge it."""

    phase: str
    """`jump`: is the outlier the first of many?; `watch`: new data or divergence?; `cut`: did the cut help?"""
    deadline: int
    """Count of steps at which the phase is judged."""
    height: float
    """Median loss when the phase began."""
    before: Normal
    """What it was like before."""


@dataclass
class Counters:
    """What a monitor counts and remembers as plain numbers; saved under these names."""

    count: int = 0
    """Steps seen; all other counts of steps are on this scale."""
    last_trouble: int = 0
    """Count at the latest trouble; 0: none yet."""
    grad_streak: int = 0
    """Exploding gradients in a row."""
    loss_streak: int = 0
    """Loss outliers in a row."""
    non_finite_streak: int = 0
    """Steps in a row whose loss or gradient was not finite."""
    probation: int = 0
    """High losses still to be seen, right after a rewind, to blame the data."""
    blamed_until: int = 0
    """Count up to which a jump is the fault of the LR: a rewind was just before."""
    rewinds: int = 0
    """Rewinds that are not forgiven."""
    below: int = 0
    """Steps in a row with a loss below `goal`."""
    goal: float | None = None
    """Loss before the first rewind that is not forgiven."""
    first_level: float | None = None
    """Level of the loss at the beginning of the run."""
    peak_log_grad: float = math.log(TINY)
    """Highest usual log gradient norm so far."""
    mark_level: float | None = None
    """Level of the loss a window ago."""
    explosions_left_out: int = 0
    """Exploding gradients since the latest that were taken for the data's own."""
    explosion_cuts: int = 0
    """Cuts of the LR for them."""
    highest_log_grad: float | None = None
    """Highest log norm among them."""
    own_log_grad: float | None = None
    """Log gradient norm up to which the data's own batches reach, rare ones included."""
    own_loss: float | None = None
    """Highest absolute loss of the rare ones that were seen to be such: several in a row are no jump."""


_LEVEL = between(-100 * HUGE, 100 * HUGE)  # of losses, sums of a few of them, and their spread
_LOG_GRAD = between(math.log(TINY) - 1, math.log(HUGE) + 1)
WINDOWS = {
    **dict.fromkeys(("residuals", "level", "recent_losses"), series(_LEVEL)),
    **dict.fromkeys(("log_grads", "recent_log_grads"), series(_LOG_GRAD)),
}
_RECENT = {
    **dict.fromkeys(("explosions_left_out", "explosion_cuts"), COUNT),
    **dict.fromkeys(("highest_log_grad", "own_log_grad"), optional(_LOG_GRAD)),
    "own_loss": optional(_LEVEL),
}
RECENT_COUNTERS = tuple(_RECENT)
"""Counters that older checkpoints lack."""
_COUNTERS = {
    **dict.fromkeys(("count", "last_trouble", "grad_streak", "loss_streak", "non_finite_streak"), COUNT),
    **dict.fromkeys(("probation", "blamed_until", "rewinds", "below"), COUNT),
    **dict.fromkeys(("goal", "first_level", "mark_level"), optional(_LEVEL)),
    "peak_log_grad": _LOG_GRAD,
    **_RECENT,
}
_NORMAL = {"level": _LEVEL, "sigma": between(0, 100 * HUGE), "log_grad": _LOG_GRAD}
_EPISODE = {
    "phase": one_of("jump", "watch", "cut"),
    "deadline": COUNT,
    "height": _LEVEL,
    "before": record(_NORMAL),
}
STATE = {**WINDOWS, **_COUNTERS, "explosions": series(COUNT), "episode": optional(record(_EPISODE))}


def counters_of(state: Mapping[str, Any]) -> Counters:
    """The counters that a saved state holds."""
    return Counters(**{name: state[name] for name in _COUNTERS if name in state})


def episode_of(state: Mapping[str, Any]) -> Episode | None:
    """The episode that a saved state holds."""
    saved = state["episode"]
    if saved is None:
        return None
    before = Normal(**{name: saved["before"][name] for name in _NORMAL})
    return Episode(saved["phase"], saved["deadline"], saved["height"], before)
