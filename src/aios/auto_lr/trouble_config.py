"""Settings of the ladder for trouble."""

from dataclasses import dataclass, fields

from aios.auto_lr.ranges import Range, check_numbers


@dataclass(frozen=True)
class TroubleConfig:
    """Settings of the ladder; a bad value raises ValueError naming field, value and what is allowed."""

    window: int = 128
    """Optimizer steps that gradient norms and loss residuals are compared with; at least `min_fill`."""
    min_fill: int = 24
    """Optimizer steps in a window before it may judge; at least 8."""
    level_window: int = 16
    """Optimizer steps whose median is the level of the loss (and of the gradient while in trouble); at least 4."""
    grad_sigmas: float = 8.0
    """Distance of an exploding gradient from the median, in robust sigmas of the log norm."""
    grad_ratio: float = 6.0
    """Least ratio of an exploding gradient norm to the median, however quiet the window."""
    loss_sigmas: float = 6.0
    """Distance of a loss outlier, in robust sigmas of the detrended loss."""
    loss_jump: float = 0.05
    """Least jump that counts, as a fraction of the loss level or of the run's first one if that is higher:
    a loss near zero has no scale of its own."""
    sustain: int = 8
    """Optimizer steps after a loss outlier whose median must be high for it to be a jump."""
    skips_to_cut: int = 3
    """Exploding gradients within `skip_window` that cut the LR; one that is not finite is left out and not counted."""
    skip_window: int = 32
    """Optimizer steps within which they are counted."""
    same_order: float = 5.0
    """Ratio of the gradient norm to the one before a jump up to which the jump may be new data, not divergence."""
    collapse: float = 0.4
    """Ratio of the gradient norm to the one before, below which a jump has left a damaged model behind."""
    patience: int = 32
    """Optimizer steps given to a cut, or to a jump with gradients of the same order, before the next rung."""
    non_finite_patience: int = 20
    """Non-finite steps in a row before a rewind."""
    max_rewinds: int = 5
    """Rewinds without progress after which the next one is a stop."""
    forgive_after: int = 64
    """Optimizer steps in a row below the loss from before the trouble after which rewinds are forgiven."""
    healthy_after: int = 16
    """Optimizer steps without trouble before a snapshot is a good one."""
    vanishing_ratio: float = 0.01
    """Ratio of the median gradient norm to its highest so far below which, the loss being flat, it vanishes."""

    def __post_init__(self) -> None:
        check_numbers(self, {setting.name: _RANGES.get(setting.name, Range(1)) for setting in fields(self)})
        if self.window < self.min_fill:
            raise ValueError(f"window = {self.window} is not allowed: must be >= min_fill = {self.min_fill}")


_RANGES: dict[str, Range] = {
    "min_fill": Range(8),
    "level_window": Range(4),
    "loss_jump": Range(1e-6, 10),
    "collapse": Range(0, 1),
    "vanishing_ratio": Range(0, 1),
    "max_rewinds": Range(0),
}
