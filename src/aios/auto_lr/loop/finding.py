"""How the rate of a run is found on its model: by a climb or a race at its start."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from aios.auto_lr.climb import RESOLVED, Climb
from aios.auto_lr.climb_config import ClimbConfig
from aios.auto_lr.events import LogFn
from aios.auto_lr.loop.climbing import Climbing, climb_and_restore
from aios.auto_lr.loop.engine import Engine
from aios.auto_lr.loop.role_plan import MEASURED, RolePlan, check_factors, kept_events, plan_roles, role_events
from aios.auto_lr.loop.scaled_updates import begin_updates, leave_updates, scale_updates
from aios.auto_lr.loop.trial import Paired, find_unit
from aios.auto_lr.loop.update import check_dense
from aios.auto_lr.loop.weights import gradients_kept, left_to_others, looks_trained, resolution, trainable
from aios.auto_lr.plan import AutoLRConfig
from aios.auto_lr.race import run_race
from aios.auto_lr.search import BUDGET, SHORTEST_RUN, Found, Trial
from aios.errors import RunError

SCALED = 256.0
"""A first loss this many times the one that the search saw on the same batch was multiplied by somebody."""
_NOTHING_MOVES = "no weight moved at any rate: does the optimizer's step do anything, and hold the model's weights?"


class Finding:
    """Finds the rate of a run of `steps`; whoever drives the loop accounts for and logs what is found.

    The `trial` of `begin` and `look` trains on any batch; without it nothing is raced.
    """

    def __init__(self, model: nn.Module, engine: Engine, steps: int, config: AutoLRConfig) -> None:
        self.climbing: Climbing | None = None
        """The climb in progress."""
        self.search_steps = 0
        """Optimizer steps' worth of work that finding the rate took."""
        self._model, self._engine = model, engine
        self._steps, self._config = steps, config
        check_factors(model, config.role_factors)
        self.roles: RolePlan | None = None
        """How the rates of the model's parts compare; None until training begins."""
        self._first_loss: float | None = None  # of the first batch, untrained

    def begin(self, step: int, batch: int, trial: Trial | None) -> Found | None:
        """What is found at once; None where the steps to come, from `step` on, are a climb."""
        try:
            with self._others_kept():
                found = self._at_once(batch, trial)
            if found is None:
                self.climbing = Climbing(self._new_climb(), self._engine, step)
        except BaseException:  # an interruption, too: the caller may go on without a search
            self._take_back_roles()
            raise
        return found

    def _at_once(self, batch: int, trial: Trial | None) -> Found | None:
        """What is found before any step is made; None where a climb is to find it."""
        self._first_loss = self._look_at(batch, trial)
        if self._steps < SHORTEST_RUN:
            self.plan_roles()
            reason = f"too few steps for a search ({self._steps}; it takes {SHORTEST_RUN} or more)"
            return Found.nothing("climb", reason, steps=0)
        if trial is not None and self._was_trained():
            self.plan_roles()
            return self._race_from_start(trial, batch)
        self.plan_roles(MEASURED)
        return None

    def plan_roles(self, measured: Mapping[str, float] | None = None) -> None:
        """Give each role its rate: those `measured`, which are for fresh models, and before them the settings'."""
        optimizers, config = self._engine.optimizers, self._config
        self.roles = plan_roles(self._model, optimizers, {**(measured or {}), **config.role_factors}, config.role_lr)
        scale_updates(self._model, optimizers, self.roles.factors, self.roles.usual)

    def settle_roles(self, log: LogFn, step: int) -> None:
        """Plan and tell those of a run that begins without a search."""
        if self.roles is None:
            self.plan_roles()
            self.tell_roles(log, step)

    def tell_roles(self, log: LogFn, step: int) -> None:
        """Log how the rates of the roles compare from optimizer step `step` on."""
        for event in role_events(self.roles, step) if self.roles is not None else ():
            log(event)

    def tell_kept_roles(self, log: LogFn, step: int) -> None:
        """Log the factors that a resumed run keeps although the settings now say otherwise."""
        saved, config = self.roles.factors if self.roles is not None else {}, self._config
        other = [role for role, factor in config.role_factors.items() if saved.get(role, 1.0) != factor]
        if other or (saved and not config.role_lr):
            for event in kept_events({role: saved.get(role, 1.0) for role in sorted({*saved, *other})}, step):
                log(event)

    def begin_update(self, step: int) -> list[float] | None:
        """An update is about to be made after step `step`; returns the rates that a climb has set for it."""
        begin_updates(self._engine.optimizers)
        if self.climbing is None:
            return None
        if step == 0:
            check_dense(self._model)
        return self.climbing.before_step()

    def change(self) -> Tensor | float:
        """What the update just launched has changed, as far as a climb wants to know."""
        return self.climbing.change() if self.climbing is not None else 0.0

    def end_update(self, log: LogFn, step: int) -> float | None:
        """The update of step `step` is launched; returns the LR of base that a climb tries with it."""
        if self.climbing is None:
            return None
        self.climbing.report_foreign(log, step)
        return self.climbing.tried

    def climb_over(self, step: int) -> bool:
        """Whether a climb is to end after step `step`: by itself, or with the run."""
        return self.climbing is not None and (self.climbing.over or step >= self._steps)

    def settle(self) -> bool:
        """Let a climb be over where it knows its knee by now; returns whether one is."""
        return self.climbing is not None and self.climbing.settle()

    def keep(self, step: int) -> None:
        """Copy the current state, after step `step`, for a climb to go back to."""
        if self.climbing is not None:
            self.climbing.keep(step)

    def pass_step(self) -> None:
        """No update is made after all; a climb makes the next one at its rate."""
        if self.climbing is not None:
            self.climbing.pass_step()

    def account(self, found: Found) -> None:
        """Add what finding it took."""
        self.search_steps += found.steps

    def look(self, batch: int, trial: Trial) -> Found:
        """What `begin`, and the climb if there is one, finds on the batches from `batch` on; all is taken back."""
        try:
            with self._others_kept():
                found = self._at_once(batch, trial)
                if found is None:
                    found = climb_and_restore(self._new_climb(), self._engine, trial, batch)
            return found
        finally:
            self._take_back_roles()

    def _take_back_roles(self) -> None:
        """Nothing has been planned: no run has begun."""
        leave_updates(self._engine.optimizers)
        self.roles = None

    def _others_kept(self) -> AbstractContextManager[None]:
        """Have a trial in the block leave no gradient on weights that others train."""
        return gradients_kept(left_to_others(self._model, self._engine.optimizers))

    def end_roles(self) -> None:
        """Let updates be what the optimizers make of them: training is over."""
        leave_updates(self._engine.optimizers)
        if self.climbing is not None:
            self.climbing.leave()

    @contextmanager
    def released_by_error(self) -> Iterator[None]:
        """Let go of the updates where the block ends the run."""
        try:
            yield
        except RunError:
            self.end_roles()
            raise

    def end_climb(self, step: int, why: str) -> Found:
        """Go back from the edge of the climb, the newest step being `step`, to where the loss was lowest.

        `why` is the reason if the climb has not ended by itself.
        """
        assert self.climbing is not None
        climbing, self.climbing = self.climbing, None
        climbing.climb.stop(why)
        return climbing.go_back(step)

    def check_scale(self, loss: float) -> None:
        """Raise ValueError if the first loss is far from the one that the search saw on the same batch and weights.

        It was multiplied then, by a loss scale.
        """
        seen, self._first_loss = self._first_loss, None
        if seen is not None and math.isfinite(loss) and abs(loss) > SCALED * abs(seen) > 0:
            raise ValueError(
                f"the loss of the first step is {loss:.4g}, where the search saw {seen:.4g}: it was scaled; hand the "
                "plain loss to step, and the GradScaler to AutoLR(..., scaler=scaler)"
            )

    def _look_at(self, batch: int, trial: Trial | None) -> float | None:
        """The loss on a batch before any training; that leaves no trace. None without a trial."""
        if trial is None:
            return None
        snapshot = self._engine.snapshot()
        try:
            return Paired(trial).evaluate(batch)
        finally:
            snapshot.restore()

    @property
    def _climb_config(self) -> ClimbConfig:
        """Climb settings adapted to the weights' precision; divisor set if one rate must serve all."""
        config, plan = self._config.climb, self.roles
        visible = max(config.visible_change, RESOLVED * resolution(self._engine.weights))
        config = replace(config, visible_change=visible)
        if plan is None or config.divisor is not None or plan.factors:
            return config
        return replace(config, divisor=1 / plan.one_rate)

    def _new_climb(self) -> Climb:
        return Climb.for_run(self._steps, self._climb_config)

    def _was_trained(self) -> bool:
        others = {id(weight) for weight in left_to_others(self._model, self._engine.optimizers)}
        with self._engine.whole_model():
            return looks_trained(w for w in trainable(self._model.parameters()) if id(w) not in others)

    def _race_from_start(self, trial: Trial, batch: int) -> Found:
        """Race rates on the batches from `batch` on."""
        trial, snapshot, config = Paired(trial), self._engine.snapshot(), self._config.race
        unit = find_unit(trial, self._engine, snapshot.restore, batch, self._climb_config)
        if unit.change is None:
            return Found.nothing("race", _NOTHING_MOVES, unit.steps)
        middle, budget = config.middle_change / unit.change, math.floor(BUDGET * self._steps) - unit.steps
        found = run_race(trial, snapshot.restore, batch, budget, middle, config)
        if found is None:
            reason = f"too few steps for a race; by what an update changes, {middle:.3g} suits such a model"
            return replace(Found.nothing("race", reason, unit.steps), lr=middle)
        return replace(found, steps=found.steps + unit.steps)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        climb = self.climbing.state_dict() if self.climbing is not None else None
        plan = self.roles or RolePlan({})
        roles = {"factors": dict(plan.factors), "one_rate": plan.one_rate, "usual": plan.usual}
        return {"search_steps": self.search_steps, "climb": climb, "roles": roles}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned; checked before (see `state_forms`)."""
        roles, optimizers = state.get("roles"), self._engine.optimizers
        # A run begun before there were roles goes on with one rate for all.
        plan = RolePlan(**roles) if roles is not None else plan_roles(self._model, optimizers, MEASURED, wanted=False)
        scale_updates(self._model, optimizers, plan.factors, plan.usual)  # before any change, because it may raise
        self.roles, self._first_loss = plan, None
        self.search_steps = state["search_steps"]
        if self.climbing is not None:  # of a search that this state takes the place of
            self.climbing.leave()
            self.climbing = None
        climb = state.get("climb")
        self.climbing = Climbing.from_state(climb, self._engine, self._climb_config) if climb is not None else None
