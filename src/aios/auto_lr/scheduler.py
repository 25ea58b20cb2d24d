"""The adaptive scheduler under profile `auto`: same shell, decisions scaled to the noise of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.adaptive_lr import AdaptiveLRConfig, LossMetrics, LRDecision
from aios.auto_lr.events import foreign_lr
from aios.auto_lr.grouped_scheduler import GroupedLRScheduler, Rates
from aios.auto_lr.param_groups import make_roles
from aios.auto_lr.rules import NoiseRules, WindowSums, decide_by_noise, move_onto_trend, summarize_window
from aios.auto_lr.saved_state import FLAG, LOSS, POSITIVE_COUNT, check_state, plain, row, series

MAX_WINDOWS = 40
"""Windows behind one decision at most: older losses say little about today's learning rate."""


class AutoLRScheduler(GroupedLRScheduler):
    """`GroupedLRScheduler` with the decisions of `rules.decide_by_noise`; a drop-in for it.

    While it is `annealing`, the loss falls because of that and says nothing about the rate.
    """

    def __init__(
        self, *args: Any, rules: NoiseRules | None = None, start_loss: float | None = None, **kwargs: Any
    ) -> None:
        self.rules, self._start_loss = rules or NoiseRules(), start_loss
        self.windows: list[WindowSums] = []
        self.level_moved = False
        super().__init__(*args, **kwargs)

    def intervene(self, decision: LRDecision, name: str, reason: str) -> None:
        """Adjust the LR by `decision` on behalf of something that watches more than the loss."""
        if self.annealing and decision is LRDecision.INCREASE:
            return
        self._forget_losses()
        self._change_lr(decision, reason, None, name)
        self.write_rates()

    def restore(self, kept: Rates, name: str, reason: str) -> None:
        """As the base class; what was seen under the other rate is forgotten."""
        self._forget_losses()
        super().restore(kept, name, reason)

    def _forget_losses(self) -> None:
        """They were seen under another rate."""
        self.window, self.windows, self._unread = [], [], []

    def begin_at(self, settings: AdaptiveLRConfig, name: str, reason: str) -> None:
        """Go on as one that begins with these `settings`, on the record."""
        self.config = settings.effective(self.use_moe)
        self.roles = make_roles(self.optimizer.param_groups, self._groups, self.config)
        lr = self.config.initial_lr
        scales = {role: self.roles[role].in_bounds(lr, scale) for role, scale in self.scales.items()}
        if (lr, scales) != (self.current_lr, self.scales):
            self.restore(Rates(lr, scales), name, reason)

    def keep_own_lr(self) -> None:
        """Undo a change of `current_lr` that no decision made (another scheduler, a callback); the log says so."""
        own = self.lr_history[-1]
        if self.current_lr != own:
            found, self.current_lr = self.current_lr, own
            self._emit(**foreign_lr(self.start_step + self.total_steps, found, own))

    def forget_reference(self) -> None:
        """As the base class; the older windows still tell of trend and noise, but no longer where the loss is."""
        super().forget_reference()
        self.level_moved = True

    def _decide(self, losses: list[float], metrics: LossMetrics) -> tuple[LRDecision, int, str]:
        newest = summarize_window(losses)
        if self.level_moved:
            self.windows, self.level_moved = move_onto_trend(self.windows, newest), False
        self.windows = [*self.windows, newest][-MAX_WINDOWS:]
        if self.total_steps - self.last_adjustment_step < self.config.cooldown_steps:
            return LRDecision.HOLD, 0, "cooldown"
        may_raise = not self.annealing and self.current_lr < self.config.lr_max
        decision, reason = decide_by_noise(self.windows, self.rules, may_raise, self._start_loss)
        if decision is LRDecision.DECREASE and (self.annealing or self.current_lr <= self.config.lr_min):
            return LRDecision.HOLD, 0, reason
        if decision is not LRDecision.HOLD:
            self.windows = []
        return decision, 0, reason

    def state_dict(self) -> dict[str, Any]:
        """As the base class, with the windows since the last change."""
        windows = [list(w) for w in self.windows]
        return {**super().state_dict(), "windows": windows, "level_moved": self.level_moved}

    @staticmethod
    def check_state(state: Any) -> None:
        """As the base class."""
        GroupedLRScheduler.check_state(state)
        check_state("adaptive LR state", state, _STATE, may_lack=_STATE)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """As the base class; a state saved under profile `rules` has no windows and starts without."""
        super().load_state_dict(state)  # checks all of it first
        self.windows = [WindowSums(*sums) for sums in state.get("windows", [])]
        self.level_moved = state.get("level_moved", False)


_SQUARES = plain("a number not below 0", lambda v: LOSS.fits(v) and not v < 0)
_STATE = {"windows": series(row(POSITIVE_COUNT, LOSS, _SQUARES, LOSS)), "level_moved": FLAG}
