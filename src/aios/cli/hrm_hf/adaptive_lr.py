"""A learning rate that follows the training loss.

Three pure stages: `compute_metrics` (how the last window of losses looked), `decide` (what to do about it),
`adjust` (the new learning rate). `AdaptiveLRScheduler` is the thin shell that counts steps, writes the result
into an optimizer and reports every change with its reason.

The file stands alone, and is as long as that makes it: it is copied and loaded by itself (the contract's rule), with
the standard library only; torch is touched only when a loss is a tensor on an accelerator.
Loaded by path, outside `sys.modules`, dataclasses cannot resolve annotations that are strings: so none are.
"""

import math
import reprlib
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from numbers import Integral, Real
from typing import Any

DEFAULT_LR = 5e-5
HISTORY_LIMIT = 1000
STATE_VERSION = 1
_LARGEST = 2**53  # counts stay below it: up to there every whole number is a float as well

_RANGES: dict[str, Callable[[float], bool]] = {
    "> 0": lambda v: v > 0,
    "> 1": lambda v: v > 1,
    ">= 0": lambda v: v >= 0,
    ">= 1": lambda v: v >= 1,
    ">= 2": lambda v: v >= 2,
    "in (0, 1]": lambda v: 0 < v <= 1,
    "true or false": lambda v: True,
}
_ORDERED = (
    ("lr_min", "lr_max"),
    ("moe_lr_min", "moe_lr_max"),
    ("plateau_threshold", "increase_threshold"),
    ("stability_threshold", "instability_threshold"),
)


def _setting(default: Any, allowed: str) -> Any:
    return field(default=default, metadata={"allowed": allowed})


@dataclass
class AdaptiveLRConfig:
    """Settings of the scheduler; a bad value raises ValueError naming field, value and what is allowed."""

    initial_lr: float = _setting(DEFAULT_LR, "> 0")
    """Learning rate at the start of the adaptive phase; moved to the nearest bound if outside them."""
    lr_min: float = _setting(1e-7, "> 0")
    """Lower bound of the learning rate."""
    lr_max: float = _setting(1e-2, "> 0")
    """Upper bound of the learning rate."""
    window_size: int = _setting(50, ">= 2")
    """Optimizer steps per window; one decision is taken at the end of each."""
    patience: int = _setting(20, ">= 1")
    """Optimizer steps (not windows) on a plateau before a decrease."""
    cooldown_steps: int = _setting(20, ">= 0")
    """Optimizer steps after an adjustment in which nothing is adjusted."""
    increase_threshold: float = _setting(0.02, "> 0")
    """Improvement from window to window, as a fraction of the previous mean, above which the LR may rise."""
    plateau_threshold: float = _setting(0.001, "> 0")
    """Improvement, as a fraction of the previous mean, below which a window counts as a plateau."""
    spike_threshold: float = _setting(1.2, "> 1")
    """Ratio of a window's mean to the previous one above which it is a spike."""
    stability_threshold: float = _setting(0.3, "> 0")
    """Coefficient of variation (std / |mean|) that a window must stay below for the LR to rise."""
    instability_threshold: float = _setting(0.5, "> 0")
    """Coefficient of variation (std / |mean|) above which the LR falls."""
    increase_factor: float = _setting(1.1, ">= 1")
    """Multiplier of an increase."""
    decrease_factor: float = _setting(0.7, "in (0, 1]")
    """Multiplier of a decrease (plateau or instability)."""
    spike_factor: float = _setting(0.5, "in (0, 1]")
    """Multiplier of the emergency brake (spike or non-finite loss)."""
    max_change_per_step: float = _setting(0.3, "in (0, 1]")
    """Largest change of one adjustment, as a fraction of the LR."""
    rate_limit_spikes: bool = _setting(False, "true or false")
    """True puts the emergency brake under `max_change_per_step` too."""
    moe_lr_min: float = _setting(1e-5, "> 0")
    """Lower bound of the learning rate for mixture-of-experts models."""
    moe_lr_max: float = _setting(2e-3, "> 0")
    """Upper bound of the learning rate for mixture-of-experts models."""
    moe_increase_factor: float = _setting(1.05, ">= 1")
    """Multiplier of an increase for mixture-of-experts models."""
    moe_decrease_factor: float = _setting(0.85, "in (0, 1]")
    """Multiplier of a decrease for mixture-of-experts models."""

    def __post_init__(self) -> None:
        self._requested_lr: float | None = None  # initial_lr before `effective` moved it; no setting
        for name in _FIELDS:
            setattr(self, name, _checked(name, getattr(self, name)))
        for low, high in _ORDERED:
            smaller, larger = getattr(self, low), getattr(self, high)
            if smaller > larger:
                raise ValueError(f"{low} = {smaller!r} is not allowed: must be <= {high} = {larger!r}")

    @classmethod
    def from_base_lr(
        cls, base_lr: float | None, steps: int, use_moe: bool = False, **overrides: Any
    ) -> "AdaptiveLRConfig":
        """Settings for a run of `steps` optimizer steps from its learning rate (None: 5e-5).

        `overrides` are fields given explicitly: the bounds are derived from an explicit `initial_lr`, and a
        derived bound gives way to an explicit one. Raises ValueError for a bad value, TypeError for no field.
        """
        base_lr = DEFAULT_LR if base_lr is None else base_lr
        initial = _checked("initial_lr", overrides.pop("initial_lr", base_lr))
        lr_min, lr_max = initial / 100, initial * 20
        if "lr_min" in overrides:
            lr_max = max(lr_max, _checked("lr_min", overrides["lr_min"]))
        if "lr_max" in overrides:
            lr_min = min(lr_min, _checked("lr_max", overrides["lr_max"]))
        derived = {"lr_min": lr_min, "lr_max": lr_max, "window_size": default_window_size(steps)}
        return cls(initial_lr=initial, **{**derived, **overrides}).effective(use_moe)

    def effective(self, use_moe: bool) -> "AdaptiveLRConfig":
        """What a scheduler runs on: MoE bounds and factors put in, `initial_lr` moved inside the bounds.

        Applying it twice changes nothing. Where plain and MoE bounds do not overlap, the MoE bounds hold.
        """
        config = self
        if use_moe:
            low, high = max(self.lr_min, self.moe_lr_min), min(self.lr_max, self.moe_lr_max)
            if low > high:
                low, high = self.moe_lr_min, self.moe_lr_max
            up, down = self.moe_increase_factor, self.moe_decrease_factor
            config = replace(self, lr_min=low, lr_max=high, increase_factor=up, decrease_factor=down)
        moved = config.clamp(config.initial_lr)
        requested = self.initial_lr if moved != self.initial_lr else self._requested_lr
        config = replace(config, initial_lr=moved)
        config._requested_lr = requested
        return config

    def clamp(self, lr: float) -> float:
        """The learning rate nearest to `lr` within the bounds."""
        return min(max(lr, self.lr_min), self.lr_max)


_FIELDS: dict[str, Any] = {setting.name: setting for setting in fields(AdaptiveLRConfig)}


def _checked(name: str, value: Any) -> Any:
    """`value` as a plain float, int or bool inside the allowed range of setting `name`, else ValueError."""
    kind, allowed = type(_FIELDS[name].default), _FIELDS[name].metadata["allowed"]
    number, noun = {int: (Integral, "a whole number "), float: (Real, "a finite number "), bool: (bool, "")}[kind]
    is_kind = isinstance(value, number) and isinstance(value, bool) == (kind is bool)
    if not (is_kind and math.isfinite(value) and _RANGES[allowed](value)):
        raise ValueError(f"{name} = {value!r} is not allowed: must be {noun}{allowed}")
    return kind(value)


def default_warmup_steps(steps: int) -> int:
    """Warm-up length of a run of `steps` optimizer steps: 10 % of it."""
    return steps // 10


def default_window_size(steps: int) -> int:
    """Optimizer steps per window in a run of `steps`: a twentieth of it, at least 10 and at most 50."""
    return max(10, min(50, steps // 20))


def warmup_lr(base_lr: float, step: int, warmup_steps: int) -> float:
    """Linear warm-up: base x (step + 1) / warmup_steps, exactly `base_lr` from the last warm-up step on.

    `step` counts optimizer steps from 0.
    """
    return base_lr if step + 1 >= warmup_steps else base_lr * (step + 1) / warmup_steps


def preflight_moe_lr(lr: float) -> tuple[float, str | None]:
    """The learning rate a mixture-of-experts run starts from, and why it is not `lr` (None where it is)."""
    if lr >= 2e-3:
        return 1e-3, f"{lr:g} is too high for a mixture of experts (must be below 2e-3)"
    if lr < 1e-4:
        return 1e-4, f"{lr:g} is too low for a mixture of experts (must be at least 1e-4)"
    return lr, None


class LRDecision(str, Enum):
    """What to do with the learning rate after a window."""

    INCREASE = "increase"
    DECREASE = "decrease"
    HOLD = "hold"
    SPIKE_DECREASE = "spike_decrease"


@dataclass(frozen=True)
class LossMetrics:
    """Statistics of one window; in the first one `previous_avg` is None and both improvements are 0."""

    current_avg: float
    previous_avg: float | None
    current_std: float  # population
    improvement: float  # previous_avg - current_avg
    improvement_rate: float  # improvement / |previous_avg|
    cv: float  # coefficient of variation, current_std / |current_avg|
    trend: float  # least-squares slope of loss against step index, loss per step; negative = improving


def compute_metrics(losses: list[float], previous_avg: float | None) -> LossMetrics:
    """Statistics of a window of at least two finite losses, in step order.

    Deviations are taken from the first loss, so that a constant window has a std and a trend of exactly 0.
    A division by zero gives the limit: 0 for 0 / 0, else infinity with the sign of the numerator.
    """
    n, origin = len(losses), losses[0]
    deviations = [loss - origin for loss in losses]
    shift = sum(deviations) / n
    mean, centre = origin + shift, (n - 1) / 2
    squares = slope = 0.0
    for i, deviation in enumerate(deviations):
        centred = deviation - shift
        squares += centred * centred
        slope += (i - centre) * centred
    std = math.sqrt(squares / n)
    improvement = 0.0 if previous_avg is None else previous_avg - mean
    rate = 0.0 if previous_avg is None else _ratio(improvement, abs(previous_avg))
    trend = slope / (n * (n * n - 1) / 12)  # the sum of (i - centre)^2
    return LossMetrics(mean, previous_avg, std, improvement, rate, _ratio(std, abs(mean)), trend)


def _ratio(numerator: float, size: float) -> float:
    if size:
        return numerator / size
    return math.copysign(math.inf, numerator) if numerator else 0.0


def decide(
    metrics: LossMetrics, config: AdaptiveLRConfig, lr: float, steps_since_adjustment: int, plateau_steps: int
) -> tuple[LRDecision, int, str]:
    """The decision for a full window, the plateau counter (optimizer steps) after it, and the reason.

    The first rule that matches wins; spike and noise come before improvement: safety first.
    """
    previous, rate, cv = metrics.previous_avg, metrics.improvement_rate, metrics.cv
    if steps_since_adjustment < config.cooldown_steps:
        return LRDecision.HOLD, plateau_steps, "cooldown"
    if previous is not None and metrics.current_avg - previous > (config.spike_threshold - 1) * abs(previous):
        return LRDecision.SPIKE_DECREASE, 0, f"loss_spike ({metrics.current_avg:.4g} vs {previous:.4g})"
    if cv > config.instability_threshold:
        return LRDecision.DECREASE, 0, f"unstable (cv {cv:.3g} > {config.instability_threshold:g})"
    improving = rate > config.increase_threshold and cv < config.stability_threshold and metrics.trend < 0
    if improving and lr < config.lr_max:
        return LRDecision.INCREASE, 0, f"improving ({rate:.2%} per window, cv {cv:.3g})"
    if previous is not None and rate < config.plateau_threshold:
        plateau_steps += config.window_size
        reason = f"plateau ({plateau_steps} steps, patience {config.patience})"
        if plateau_steps >= config.patience and lr > config.lr_min:
            return LRDecision.DECREASE, 0, reason
        return LRDecision.HOLD, plateau_steps, reason
    return LRDecision.HOLD, 0, "steady"


def adjust(lr: float, decision: LRDecision, config: AdaptiveLRConfig) -> float:
    """The learning rate after `decision`: multiplied, rate limited (a spike only if asked), in bounds."""
    if decision is LRDecision.HOLD:
        return lr
    factor = {
        LRDecision.INCREASE: config.increase_factor,
        LRDecision.DECREASE: config.decrease_factor,
        LRDecision.SPIKE_DECREASE: config.spike_factor,
    }[decision]
    if decision is not LRDecision.SPIKE_DECREASE or config.rate_limit_spikes:
        factor = min(max(factor, 1 - config.max_change_per_step), 1 + config.max_change_per_step)
    return config.clamp(lr * factor)


class AdaptiveLRScheduler:
    """Drives the learning rate of `optimizer` (anything with `param_groups`): `step` once per optimizer step.

    `log_fn` receives each event as a dict: `event`, `ts` (unix seconds), `step` (global optimizer step), ...
    `start_step` is the global optimizer step at which the adaptive phase begins; `warmup_steps` is logged.
    `reduce_fn` averages a full window's losses over the ranks that share weights, one call per window on each
    rank: such ranks must therefore hand in a non-finite loss at the same step.
    Raises ValueError when the first param group's base learning rate is not positive: ratios need one.
    """

    def __init__(
        self,
        optimizer: Any,
        config: AdaptiveLRConfig,
        use_moe: bool = False,
        log_fn: Callable[[dict[str, Any]], None] | None = None,
        *,
        start_step: int = 0,
        warmup_steps: int = 0,
        reduce_fn: Callable[[list[float]], list[float]] | None = None,
    ) -> None:
        self.optimizer, self.use_moe, self.start_step = optimizer, use_moe, start_step
        self.config = config.effective(use_moe)
        self.current_lr = self.config.initial_lr
        self.total_steps = self.adjustments_made = 0
        self.lr_history: deque[float] = deque([self.current_lr], maxlen=HISTORY_LIMIT)
        self._log_fn, self._reduce_fn = log_fn, reduce_fn
        self.window: list[float] = []  # finite losses, read
        self._unread: list[Any] = []  # tensors on an accelerator, younger than all in window
        self.previous_avg: float | None = None
        self.plateau_steps = self.last_adjustment_step = 0
        self.last_brake_step: int | None = None
        self._bases: list[float] = []  # one per param group
        self._apply()
        self._emit_init(warmup_steps)

    def step(self, loss: Any) -> float:
        """Take the loss of one optimizer step (number or one-element tensor); return the LR now in force.

        A tensor on an accelerator stays unread until the window is full and all are read in one transfer; a
        non-finite one among them is therefore found, and the brake pulled, only then.
        """
        self.total_steps += 1
        if type(loss) is not float:  # the common case skips these look-ups
            if not getattr(loss, "is_cpu", True):
                self._defer(loss)
                return self.current_lr
            loss = float(loss.item() if hasattr(loss, "item") else loss)
        if self._unread:
            self._read_deferred()  # older than this loss
        self._take(loss)
        return self.current_lr

    def get_lr(self) -> float:
        """The learning rate in force, that of the first param group."""
        return self.current_lr

    def get_last_lr(self) -> list[float]:
        """The learning rate of each param group."""
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def get_summary(self) -> dict[str, Any]:
        """Totals of the run so far."""
        totals = {"total_steps": self.total_steps, "adjustments_made": self.adjustments_made}
        return totals | {"final_lr": self.current_lr, "lr_history_length": len(self.lr_history)}

    def forget_reference(self) -> None:
        """Compare with nothing older: the weights were replaced (merged with other workers'), and the loss with them.

        The open window starts anew and has none before it, so that a jump which came with the weights is no spike.
        """
        self.window, self._unread, self.previous_avg = [], [], None

    def log_summary(self) -> None:
        """Emit `adaptive_lr_summary`; call it at the end of a run."""
        self._emit("adaptive_lr_summary", **self.get_summary())

    def state_dict(self) -> dict[str, Any]:
        """What was learned, as plain numbers, strings, lists and dicts (loads with `weights_only=True`)."""
        self._read_deferred()
        state = {key: getattr(self, key) for key in _STATE}
        state |= {"window": list(self.window), "lr_history": list(self.lr_history)}
        return state | {"version": STATE_VERSION, "use_moe": self.use_moe, "config": asdict(self.config)}

    @staticmethod
    def check_state(state: Any) -> None:
        """Raise ValueError, naming what is wrong, unless `state` is one that `load_state_dict` takes."""
        _check_state(state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what was learned; the settings stay those this scheduler was built with.

        The restored LR is clamped to the new bounds and applied at once; of a window too long for the new
        size the newest losses are kept. Raises ValueError, before any change, for any other kind of state.
        """
        self.check_state(state)
        for key in _STATE:
            setattr(self, key, state[key])
        self.current_lr = self.config.clamp(self.current_lr)
        self.window, self._unread = state["window"][1 - self.config.window_size :], []
        self.lr_history = deque(state["lr_history"], maxlen=HISTORY_LIMIT)
        if self.current_lr != state["current_lr"]:
            self.lr_history.append(self.current_lr)
        self._apply()
        restored = {"from_step": self.start_step + self.total_steps, "current_lr": self.current_lr}
        self._emit("adaptive_lr_restored", **restored, window_fill=len(self.window))

    def _take(self, loss: float) -> None:
        if math.isfinite(loss):
            self.window.append(loss)
            if len(self.window) >= self.config.window_size:
                self._close_window()
        else:
            self._brake()

    def _defer(self, loss: Any) -> None:
        # A copy: the caller may go on adding to its loss buffer in place.
        self._unread.append(loss.detach().clone().reshape(()))
        if len(self.window) + len(self._unread) >= self.config.window_size:
            self._read_deferred()

    def _read_deferred(self) -> None:
        if not self._unread:
            return
        import torch  # only tensors get here

        unread, self._unread = self._unread, []
        for loss in torch.stack(unread).tolist():
            self._take(loss)

    def _close_window(self) -> None:
        losses, self.window = self.window, []
        if self._reduce_fn is not None:
            losses = self._reduce_fn(losses)
        metrics = compute_metrics(losses, self.previous_avg)
        if not math.isfinite(metrics.current_avg):  # overflow, or another rank's NaN: seen alike by all ranks
            self._brake()
            return
        decision, self.plateau_steps, reason = self._decide(losses, metrics)
        self.previous_avg = metrics.current_avg
        self._change_lr(decision, reason, metrics)

    def _decide(self, losses: list[float], metrics: LossMetrics) -> tuple[LRDecision, int, str]:
        """What to do about a full window: the contract's rules; other profiles put theirs here."""
        since = self.total_steps - self.last_adjustment_step
        return decide(metrics, self.config, self.current_lr, since, self.plateau_steps)

    def _brake(self) -> None:
        """A non-finite loss: brake at once, at most once per cooldown; the window starts anew."""
        self.window = []
        last = self.last_brake_step
        if last is not None and self.total_steps - last < self.config.cooldown_steps:
            return
        self.plateau_steps, self.last_brake_step = 0, self.total_steps
        self._change_lr(LRDecision.SPIKE_DECREASE, "non_finite_loss", None)

    def _change_lr(
        self, decision: LRDecision, reason: str, metrics: LossMetrics | None, name: str | None = None
    ) -> None:
        """Adjust by `decision` and record it, under `name` where another part of the trainer decided."""
        old_lr, new_lr = self.current_lr, adjust(self.current_lr, decision, self.config)
        groups = self._adjust_groups(decision, old_lr, new_lr)
        if new_lr != old_lr or groups:
            self._set_lr(new_lr, name or decision.value, reason, metrics, **groups)

    def _set_lr(self, new_lr: float, name: str, reason: str, metrics: LossMetrics | None, **groups: Any) -> None:
        old_lr, self.current_lr, self.last_adjustment_step = self.current_lr, new_lr, self.total_steps
        self.adjustments_made += 1
        self.lr_history.append(new_lr)
        self._apply()
        lrs = {"old_lr": old_lr, "new_lr": new_lr, "change_pct": round(100 * (new_lr / old_lr - 1), 6)}
        why = {"reason": reason, "metrics": _loggable(metrics)}
        self._emit("adaptive_lr_adjustment", decision=name, **lrs, **why, **groups)

    def _adjust_groups(self, decision: LRDecision, old_lr: float, new_lr: float) -> dict[str, Any]:
        """For param groups with settings of their own, which a subclass may have: what to add to the record."""
        return {}

    def _apply(self) -> None:
        """Write the LR into every param group; one added later joins with the ratio of its own base."""
        for group in self.optimizer.param_groups[len(self._bases) :]:
            self._bases.append(float(group.get("initial_lr", group["lr"])))
        if not self._bases[0] > 0:
            raise ValueError(f"the first param group's learning rate is {self._bases[0]!r}: must be > 0")
        for group, base in zip(self.optimizer.param_groups, self._bases, strict=False):
            lr = self.current_lr * (base / self._bases[0])
            if hasattr(group["lr"], "fill_"):  # a tensor LR (capturable optimizers) must stay the same tensor
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr

    def _emit_init(self, warmup_steps: int, **extra: Any) -> None:
        config, requested = self.config, self.config._requested_lr
        init = {key: getattr(config, key) for key in ("initial_lr", "lr_min", "lr_max", "window_size")}
        if requested is not None:
            init["requested_lr"] = requested
            if self.use_moe:
                reason = f"outside the MoE bounds {config.lr_min:g} to {config.lr_max:g}"
                lrs = {"original_lr": requested, "adjusted_lr": config.initial_lr}
                self._emit("moe_lr_adjustment", **lrs, reason=reason)
        self._emit("adaptive_lr_init", **init, use_moe=self.use_moe, warmup_steps=warmup_steps, **extra)

    def _emit(self, event: str, **values: Any) -> None:
        if self._log_fn is not None:
            step = self.start_step + self.total_steps
            self._log_fn({"event": event, "ts": time.time(), "step": step, **values})


def _loggable(metrics: LossMetrics | None) -> dict[str, float | None]:
    """The metrics of an adjustment event; null where there is no finite number (JSON has no NaN)."""
    names = {"loss_avg": "current_avg", "improvement_rate": "improvement_rate", "cv": "cv", "trend": "trend"}
    values = {key: getattr(metrics, name, math.nan) for key, name in names.items()}
    return {key: value if math.isfinite(value) else None for key, value in values.items()}


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST


def _is_loss(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)


def _is_rate(value: Any) -> bool:
    return _is_loss(value) and value > 0


_STATE: dict[str, Callable[[Any], bool]] = {  # the scheduler's learned attributes, and what they can be
    **dict.fromkeys(("start_step", "total_steps", "adjustments_made"), _is_count),
    **dict.fromkeys(("plateau_steps", "last_adjustment_step"), _is_count),
    "last_brake_step": lambda value: value is None or _is_count(value),
    "previous_avg": lambda value: value is None or _is_loss(value),
    "current_lr": _is_rate,
    "window": lambda value: type(value) is list and all(map(_is_loss, value)),
    "lr_history": lambda value: type(value) is list and bool(value) and all(map(_is_rate, value)),
}


def _check_state(state: Any) -> None:
    if not isinstance(state, Mapping):
        raise ValueError(f"adaptive LR state = {shown(state)} is not allowed: must be what state_dict() returned")
    found = state.get("version")
    if type(found) is not int or found != STATE_VERSION:
        raise ValueError(f"adaptive LR state: version = {shown(found)} is not allowed: must be {STATE_VERSION}")
    for key, is_saved in _STATE.items():
        if key not in state:
            raise ValueError(f"adaptive LR state has no {key!r}: is it the state_dict() of this scheduler?")
        if not is_saved(state[key]):
            raise ValueError(f"adaptive LR state: {key} = {shown(state[key])} is not what a scheduler saves")


class _Bounded(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) <= _LARGEST else f"<a whole number of {x.bit_length()} bits>"


shown = _Bounded().repr
"""`repr` for messages: cut short, and safe for anything that is not ours."""
