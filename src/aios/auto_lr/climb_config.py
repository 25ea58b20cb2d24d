"""Settings of the climb."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aios.auto_lr.ranges import Range, check_number, check_numbers

_RANGES: dict[str, Range] = {
    **{"cycle": (0, math.inf), "calm_cycle": (4, math.inf), "short_cycle": (0, 1), "shortest_cycle": (4, math.inf)},
    **{"cycles_per_decade": (1, 100), "longest": (0, 1), "recent": (4, math.inf), "flat_cycles": (1, math.inf)},
    **dict.fromkeys(("first_lr", "visible_change", "first_change", "last_lr"), (1e-30, 1e30)),
    **{"divisor": (1e-6, 1e6), "momentum_power": (0, 10), "rise_part": (0, 1), "decay_part": (0, 1)},
    **dict.fromkeys(("harmful_change", "rise", "rise_sigmas", "tolerance", "tolerance_sigmas"), (0, math.inf)),
    "clear_sigmas": (0, math.inf),
}


@dataclass(frozen=True)
class ClimbConfig:
    """Settings of the climb. Changes are those of an update: RMS of the change over RMS of the weight.

    A bad value raises ValueError naming field, value and what is allowed.
    """

    cycle: float = 0.5
    """Steps of a cycle over the square root of the run's: longer cycles find a lower rate, and longer runs want lower
    ones, though by less than their length (steps^-0.3, arXiv 2409.19913) ..."""
    calm_cycle: int = 16
    """... and no fewer than so many, for the loss follows the rate late ..."""
    short_cycle: float = 0.0375
    """... but never more than this part of the run ..."""
    shortest_cycle: int = 4
    """... and never fewer than this many."""
    cycles_per_decade: int = 4
    """So many cycles to a peak ten times higher."""
    rise_part: float = 1 / 6
    """Part of a cycle in which the rate rises to its peak ..."""
    decay_part: float = 0.5
    """... and in which it falls to zero again, linearly."""
    first_lr: float = 1e-8
    """Where it is tried first what an update does to the weights."""
    visible_change: float = 1e-6
    """Smallest change that is no rounding error of fp32; in coarser numbers it is larger (`RESOLVED`)."""
    first_change: float = 3e-3
    """Change by an update at the peak of the first cycle: below what trains well, whatever the optimizer."""
    harmful_change: float = 0.01
    """Updates smaller than this break nothing: a rise of the loss before is noise, or passes."""
    longest: float = 0.35
    """Part of the run that the climb may take; then it ends wherever it is."""
    last_lr: float = 1e3
    """Where the climb ends if nothing else ends it."""
    rise: float = 0.1
    """The loss has risen when a cycle ends by this part of the fall above the lowest ..."""
    rise_sigmas: float = 3.0
    """... and by at least so many standard errors, beyond what the lowest of so many is by chance."""
    tolerance: float = 0.05
    """The knee: as low as the lowest but for this part of the fall ..."""
    tolerance_sigmas: float = 0.5
    """... or so many standard errors."""
    clear_sigmas: float = 2.0
    """A fall is clear by so many standard errors, beyond what the lowest of so many is by chance."""
    recent: int = 16
    """So many losses in a row tell the noise between batches at a time: a model that has learned nothing yet finds all
    batches alike."""
    flat_cycles: int = 2
    """The climb ends when so many cycles past its knee were no lower."""
    divisor: float | None = None
    """The rate taken is the knee's over this. None: 1, but where one rate has to do for parts that want less (see
    `loop.roles`) ..."""
    momentum_power: float = 0.4
    """... and, where updates are made from a momentum m alone (SGD with one, Lion), over 1 / (1 - m) to this power. So
    much more does each gradient count, and its noise, but what is borne is up to twice the rate that plain SGD bears
    (2 (1 + m) over the curvature, Polyak 1964), and that is all that a climb, early, sees. 2.5 for the usual 0.9."""

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        check_number("rise_part + decay_part", float(self.rise_part + self.decay_part), (0, 1))
