"""Settings of the climb."""

from __future__ import annotations

from dataclasses import dataclass

from aios.auto_lr.ranges import Range, check_number, check_numbers

_RANGES: dict[str, Range] = {
    "cycle": Range(0),
    **dict.fromkeys(("calm_cycle", "shortest_cycle", "recent"), Range(4)),
    **dict.fromkeys(("short_cycle", "longest", "furthest", "rise_part", "decay_part"), Range(0, 1)),
    "cycles_per_decade": Range(1, 100),
    "flat_cycles": Range(1),
    **dict.fromkeys(("first_lr", "visible_change", "first_change", "drastic_change", "last_lr"), Range(1e-30, 1e30)),
    "divisor": Range(1e-6, 1e6),
    "momentum_power": Range(0, 10),
    **dict.fromkeys(("harmful_change", "rise", "rise_sigmas", "tolerance"), Range(0)),
    **dict.fromkeys(("tolerance_sigmas", "clear_sigmas"), Range(0)),
}


@dataclass(frozen=True)
class ClimbConfig:
    """Settings of the climb. Changes are those of an update: RMS of the change over RMS of the weight.

    A bad value raises ValueError naming field, value and what is allowed.
    """

    cycle: float = 0.5
    """Cycle length divided by sqrt(steps). Longer cycles find a lower rate, and longer runs want lower ones, though by
    less than their length (steps^-0.3, arXiv 2409.19913)."""
    calm_cycle: int = 16
    """Least steps of a cycle, because the loss follows the rate late; `short_cycle` wins over it."""
    short_cycle: float = 0.0375
    """Most steps of a cycle, as a fraction of the run's."""
    shortest_cycle: int = 4
    """Least steps of a cycle in any run; wins over `short_cycle`."""
    cycles_per_decade: int = 4
    """Cycles until the peak is ten times higher."""
    rise_part: float = 1 / 6
    """First part of a cycle, in which the rate rises to its peak linearly."""
    decay_part: float = 0.5
    """Last part of a cycle, in which the rate falls to zero linearly."""
    first_lr: float = 1e-8
    """Rate at which the effect of an update on the weights is first measured."""
    visible_change: float = 1e-6
    """Smallest change that is no rounding error of fp32; in coarser numbers it is larger (`RESOLVED`)."""
    first_change: float = 3e-3
    """Change by an update at the peak of the first cycle: below what trains well, whatever the optimizer."""
    harmful_change: float = 0.01
    """Updates smaller than this break nothing: a rise of the loss before is noise, or passes."""
    drastic_change: float = 1.0
    """An update of this size replaces the weights: if nothing was clear by then, higher rates tell no more."""
    longest: float = 0.35
    """Part of the run at which the climb ends, unless higher rates may still gain: where the newest cycle has ended
    clearly the lowest, or where nothing is clear and no update was drastic yet."""
    furthest: float = 0.6
    """Largest part of the run that the climb may take, if that is more than `longest`; it ends there, whatever it has
    found: behind it the anneal is near."""
    last_lr: float = 1e3
    """Rate at which the climb ends if nothing else ends it."""
    rise: float = 0.1
    """The loss has risen if a cycle ends above the lowest by this fraction of the fall, and by `rise_sigmas`."""
    rise_sigmas: float = 3.0
    """Least rise in standard errors, beyond what chance explains in the lowest of all cycles; see `rise`."""
    tolerance: float = 0.05
    """The knee is the first cycle that ends above the lowest by no more than this fraction of the fall, or by
    `tolerance_sigmas`."""
    tolerance_sigmas: float = 0.5
    """The same in standard errors; the larger of the two counts."""
    clear_sigmas: float = 2.0
    """A fall is clear if it exceeds this many standard errors, beyond what chance explains in the lowest of all
    cycles."""
    recent: int = 16
    """Losses in a row from which the noise between batches is measured. It changes: to a model that has learned
    nothing yet all batches are alike."""
    flat_cycles: int = 2
    """The climb ends when this many cycles past its knee were no lower."""
    divisor: float | None = None
    """The rate taken is the knee's divided by this. None: 1, or more where one rate must serve parts that want less
    (see `loop.roles`)."""
    momentum_power: float = 0.4
    """With momentum m alone, the rate is multiplied by (1 - m)^power. An early climb sees only what rate is borne, up
    to 2 (1 + m) over the curvature (Polyak 1964), while each gradient, and its noise, counts 1 / (1 - m) times."""

    def __post_init__(self) -> None:
        check_numbers(self, _RANGES)
        check_number("rise_part + decay_part", self.rise_part + self.decay_part, Range(0, 1))
