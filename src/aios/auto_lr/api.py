"""`AutoLR`: what every training loop steers by, the trainer of this package and anyone's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, SupportsIndex

import torch
from torch import Tensor, nn

from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.events import LogFn, group_joined, ignore
from aios.auto_lr.loop.arguments import (
    check_apart,
    check_gradients,
    check_no_own_step_size,
    inside,
    number_on,
    vector_on,
    whole_steps,
)
from aios.auto_lr.loop.engine import Engine, InProcess, in_process, overflowed
from aios.auto_lr.loop.evaluations import Evaluations, GoBack
from aios.auto_lr.loop.finding import Finding
from aios.auto_lr.loop.limits import disabled_parts, effective_config, look_obstacle, search_obstacle
from aios.auto_lr.loop.readback import Launched, Readback, StepReport
from aios.auto_lr.loop.snapshot import RewindPoint
from aios.auto_lr.loop.trial import Backward, Forward, as_trial
from aios.auto_lr.loop.update import check_dense, must_skip
from aios.auto_lr.loop.weights import all_trained
from aios.auto_lr.param_groups import JoinedGroups, as_several, begin_groups, initial_rate, start_scales, take_new_rates
from aios.auto_lr.plan import AutoLRConfig, Given, Plan, make_plan, resumed_plan
from aios.auto_lr.search import Found, Trial
from aios.auto_lr.state_forms import STATE_VERSION, read_state


class AutoLR:
    """Trains `steps` optimizer steps at a learning rate it finds and follows itself.

    Call `search` once, before the first step (or leave it out, to begin at the optimizers' LR); then, until `finished`,
    `step(loss)` after each backward pass. A framework that clips and updates itself calls `before_step`, `skips` and
    `after_step` in its place.

    `steps` counts updates that train the model; race steps come on top. All param groups keep their ratio to the
    first. `log_fn` receives every event; `on_step` each step's numbers, on CUDA one step late.

    Raises ValueError for arguments that cannot be used, RunError (from `step`, `after_step`) when a run cannot go on.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        steps: int,
        config: AutoLRConfig | None = None,
        log_fn: LogFn | None = None,
        *,
        use_moe: bool = False,
        scaler: torch.amp.GradScaler | None = None,
        engine: Engine | None = None,
        on_step: Callable[[StepReport], None] | None = None,
        go_back: GoBack | None = None,
    ) -> None:
        self.steps = whole_steps(steps)
        self.model, self.use_moe = model, use_moe
        self.config = config or AutoLRConfig()
        several = [inside(optimizer, scaler) for optimizer in as_several(optimizers)]
        check_apart(model, several)
        self._groups = JoinedGroups(several)
        self._left = take_new_rates(self._groups.param_groups)
        scales = start_scales(self._groups.param_groups, self.config.groups)
        self.engine: Engine = engine or in_process(model, several, scaler, self.config.max_grad_norm)
        if effective_config(self.config, self.engine).profile in ("auto", "rules"):
            check_no_own_step_size(several)
        self.step_count = 0
        """Optimizer steps done."""
        self.batch = 0
        """Number of the next batch to train on."""
        self.control: LearningRateControl | None = None
        """Warm-up, scheduler and recovery; None until the first step. The trainer of this package looks into it: what
        others may rely on is in `aios.auto_lr.__all__`."""
        self._log, self._on_step = ignore if log_fn is None else log_fn, on_step
        self._readback: Readback[Launched] = Readback(self.engine.device)
        self._finding = Finding(model, self.engine, self.steps, self.config)
        self.evaluations = Evaluations(effective_config(self.config, self.engine), self.engine, go_back)
        """What `report_eval` was told: the `best`, and whether the run is `overfitting`."""
        self._found: Found | None = None
        self._pause = self.steps
        self._rates: list[float] = []  # of the step being made; empty between two
        begin_groups(self._groups.param_groups, scales)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse to be copied or pickled: what it has hung on the optimizers would silently stay behind."""
        raise TypeError(
            "an AutoLR cannot be copied or pickled: build another one on the copied model and optimizers, and give it "
            "this one's state_dict() by load_state_dict()"
        )

    @property
    def end(self) -> int:
        """The step at which the run ends: the last one, or sooner once asked to finish now."""
        return self.steps if self.control is None else min(self.steps, self.control.anneal.end)

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or those up to where it is to pause."""
        return self.step_count >= min(self.end, self._pause)

    @property
    def begun(self) -> bool:
        """Whether the first step has been set up, or gone on from."""
        return self.control is not None or self.step_count > 0

    @property
    def climbing(self) -> bool:
        """Whether the LR is still being found, by a climb."""
        return self._finding.climbing is not None

    @property
    def search_steps(self) -> int:
        """Optimizer steps' worth of work that finding the rate took."""
        return self._finding.search_steps

    @property
    def finishing(self) -> bool:
        """Whether it was asked to finish now."""
        return self.control is not None and self.control.finishing

    @property
    def skip_above(self) -> float:
        """Gradient norm above which the next update is to be skipped."""
        return self.control.skip_above if self.control is not None else math.inf

    @property
    def obstacle(self) -> str | None:
        """Why there can be no search, in words for the log; None where there can."""
        return search_obstacle(self.config, self.engine)

    def search(
        self, how: Forward | Trial | None = None, micro_batches: int = 1, backward: Backward | None = None
    ) -> Found | None:
        """Find the rate. A pretrained model is raced now; a fresh one climbs during its first steps.

        Returns what was found, or None while a climb is pending. `how` is the training loss by number, `forward(i)`, a
        pure function of number and weights, or a `Trial`; without it nothing can be raced. `micro_batches` make an
        optimizer step: `forward` is asked for each by its own number. `backward` is called for `loss.backward()`, such
        as `fabric.backward`. Raises ValueError when training or a climb has begun, and where there can be no search. An
        error from `how` surfaces after the state is restored.
        """
        self._check_searchable(self.obstacle)
        trial = as_trial(how, self.model, self.engine, micro_batches, backward)
        found = self._finding.begin(self.step_count, self.batch, trial)
        self._finding.tell_roles(self._log, self.step_count)
        if found is not None:
            self._settle_on(found)
        return found

    def look(self, how: Forward | Trial, micro_batches: int = 1, backward: Backward | None = None) -> Found:
        """Find the LR as `search` would, on the first batches, and take everything back; nothing is settled by it.

        Raises ValueError as `search` does.
        """
        self._check_searchable(look_obstacle(self.engine))
        trial = as_trial(how, self.model, self.engine, micro_batches, backward)
        assert trial is not None  # `how` is not None
        return self._finding.look(self.batch, trial)

    def _check_searchable(self, obstacle: str | None) -> None:
        """Raise ValueError where there can be no search."""
        if self.begun:
            raise ValueError("search comes before the first step: training has begun")
        if self.climbing:
            raise ValueError("a search is under way already: the first steps are its climb")
        if obstacle is not None:
            raise ValueError(f"there can be no search here: {obstacle}")
        check_dense(self.model)

    def _settle_on(self, found: Found) -> None:
        """Account for what was found before training proper, and log it."""
        self._found = found
        if found.how == "race":
            self.step_count += found.steps if self.config.count_search else 0
        self._finding.account(found)
        self._log(found.event(self.step_count))

    def step(self, loss: Tensor | float) -> float:
        """Clip, update (or skip) and follow: `loss` is that of the batch whose gradients were just computed.

        Returns the LR of this update. Raises ValueError, before any change, when all steps are done, for a loss that
        is not one number, and for a first step without a gradient.
        """
        if not self.begun and isinstance(self.engine, InProcess):
            check_gradients(all_trained(self.model, self.engine.optimizers))
        number = self.engine.agreed(number_on(self.engine.device, loss, "loss"))
        lr = self.before_step()
        norm = self.engine.update(number, self.skip_above)
        self.after_step(number, norm)
        return lr

    def before_step(self) -> float:
        """Set the LR of the next update in every param group, also behind its gradients; returns the first one's."""
        if self.finished:
            raise ValueError(
                f"all {self.step_count} steps are done: loop until `finished`, or build an AutoLR of more steps and "
                "give it this one's state_dict()"
            )
        rates = self._finding.begin_update(self.step_count)
        self._rates = rates or (self.control or self._begin()).before_step(self.step_count + 1)
        for place, ratio in self._groups.joined().items():
            self._log(group_joined(self.step_count + 1, place, ratio, self._rates[place]))
        return self._rates[0]

    def skips(self, loss: Tensor, grad_norm: Tensor) -> Tensor:
        """Whether the update has to be left out, a boolean scalar on the device; the norm is that before clipping."""
        return must_skip(loss, grad_norm, self.skip_above)

    def after_step(
        self, loss: Tensor | float, grad_norm: Tensor | float, numbers: Tensor | None = None, tag: Any = None
    ) -> None:
        """Follow the update just launched; `grad_norm` is the global one before clipping.

        `numbers` (float vector on the device) and `tag` come back in the step's report. May move the LR, rewind.

        Raises:
            ValueError: when no step has begun.
            RunError: when the run cannot be saved.
        """
        self._check_begun("after_step")
        named = {"loss": loss, "grad_norm": grad_norm, "change": self._finding.change()}
        self._end_step(vector_on(self.engine.device, named, numbers), tag)

    def pass_step(self) -> None:
        """Count a begun step that had no loss and made no update."""
        self._check_begun("pass_step")
        self._finding.pass_step()
        self._end_step(torch.full((3,), math.nan, device=self.engine.device), told=False)

    def _check_begun(self, end: str) -> None:
        """Raise ValueError where the call `end` has no step to end."""
        if not self._rates:
            raise ValueError(f"{end} comes after before_step: no step has begun")

    def _end_step(self, values: Tensor, tag: Any = None, told: bool = True) -> None:
        """The step is launched: `values` on the device are its loss, gradient norm and change, and the caller's."""
        self.step_count += 1
        self.batch += 1
        tried = self._finding.end_update(self._log, self.step_count)
        self._readback.push(Launched(self.step_count, self._rates, tried, self.skip_above, tag, told), values)
        self._rates = []
        self._follow(self._readback.flush() if self.finished else self._readback.ready())
        if self._finding.climb_over(self.step_count):
            self._end_climb()
        if self.step_count >= self.end:
            self._finding.end_roles()

    def flush(self) -> None:
        """Follow everything that was launched, waiting for the device: before evaluations and checkpoints."""
        self._follow(self._readback.flush())

    def finish_now(self) -> None:
        """Anneal to zero over the next tenth of the steps, and be finished then. ValueError before the first step."""
        if not self.begun:
            raise ValueError("finish_now comes after the first step: training has not begun")
        if self.climbing:
            self._end_climb("the run was asked to finish")
        (self.control or self._begin()).finish_now(self.step_count)

    def report_eval(self, loss: Tensor | float) -> bool:
        """Report the evaluation loss of the current weights; returns whether it is the best so far (never in a climb).

        Where it has turned up beyond its noise an `overfitting` event says so, once, and `config.on_overfit` what comes
        of it (`finish`: by `go_back` of the constructor, or a copy in memory). Workers of one model report one number.
        """
        number_on(torch.device("cpu"), loss, "loss")  # raises ValueError if it is not a number
        self.flush()
        if self.climbing:
            return False
        before, may_finish = self.evaluations.best, self.begun and not (self.finished or self.finishing)
        event = self.evaluations.observe(self.step_count, float(loss), may_finish)
        if event is not None:
            self._log(event)
            if event["done"] != "keep-best":
                (self.control or self._begin()).finish_from_best(self.step_count)
                self.keep_snapshot(at_any_rate=True)
        return self.evaluations.best is not before

    def release(self) -> None:
        """Stop scaling updates, when leaving the loop early."""
        self._finding.end_roles()

    def pause_at(self, step: int) -> None:
        """Be `finished` at `step`, if it comes before the end; a later call moves it on."""
        self._pause = step

    def settle(self) -> None:
        """Follow what was launched, and end a climb past its knee, before weights to be saved are evaluated."""
        self.flush()
        if self._finding.settle():
            self._end_climb()

    def keep_snapshot(self, at_any_rate: bool = False) -> None:
        """Copy the current state for rewinds, if it is a good one: beside each checkpoint, on every worker.

        So a run that is resumed there goes back to where this one would. `at_any_rate`: also in trouble, because the
        weights have just been replaced.
        """
        self.settle()
        self._finding.keep(self.step_count)
        if self.control is not None:
            self.control.keep_snapshot(at_any_rate)

    def state_dict(self) -> dict[str, Any]:
        """All that was found and learned, as plain values (loads with `weights_only=True`); not weights and optimizers.

        Several workers all call `keep_snapshot` before one of them calls this.
        """
        self.flush()
        found = self._found.to_dict() if self._found is not None and self.control is None else None
        control = self.control.state_dict() if self.control is not None else None
        own = {"version": STATE_VERSION, "step_count": self.step_count, "batch": self.batch, "found": found}
        return {**own, **self._finding.state_dict(), "control": control, "evaluations": self.evaluations.state_dict()}

    def log_summary(self) -> None:
        """Log `adaptive_lr_summary`; call it at the end of a run."""
        if self.control is not None and self.control.scheduler is not None:
            self.control.scheduler.log_summary()

    def load_state_dict(self, state: Mapping[str, Any], *, forget: bool = False) -> None:
        """Go on from `state_dict()`; load model and optimizers first. Nothing is searched again.

        `forget` keeps what a search found, but nothing that was learned since. Raises ValueError, before any change,
        when training has begun or for any other kind of state.
        """
        if self.begun:
            raise ValueError("load_state_dict comes before the first step: training has begun")
        saved = read_state(state)
        for group, base in self._left:  # the run goes on from the bases that it began with
            group["initial_lr"] = base
        step, learned = saved["step_count"], saved["control"]
        plan = None if learned is None else resumed_plan(self._given, learned, step, forget)
        self._finding.load_state_dict(saved)
        if plan is not None:
            self.control = self._controller(plan, step)
            if not forget:
                self.control.load_state_dict(learned, step)
        self._finding.tell_kept_roles(self._log, step)
        self.step_count, self.batch = step, saved["batch"]
        self._found = Found.from_dict(saved["found"]) if saved["found"] is not None else None
        self.evaluations.load_state_dict(saved.get("evaluations"), self.finishing)
        self.keep_snapshot(at_any_rate=True)

    def _begin(self) -> LearningRateControl:
        """Settle what the search, or the optimizers' LR, says for the steps that are left."""
        check_dense(self.model)
        self._finding.settle_roles(self._log, self.step_count)
        plan = make_plan(self._given, self._found, self.step_count)
        self.control = self._controller(plan, self.step_count)
        self.keep_snapshot(at_any_rate=True)
        return self.control

    def _controller(self, plan: Plan, step: int) -> LearningRateControl:
        for event in disabled_parts(self.config, self.engine, step):
            self._log(event)
        take_snapshot = (lambda: RewindPoint(self.engine.snapshot())) if self.engine.snapshot_obstacle is None else None
        return LearningRateControl(plan, self._groups, self._log, take_snapshot, step)

    def _end_climb(self, why: str = "the run ended") -> None:
        """End the climb (`why`: if it has not ended by itself) and settle on its result."""
        self.flush()
        self._settle_on(self._finding.end_climb(self.step_count, why))
        if self.step_count < self.steps:
            self._begin()

    def _follow(self, done: list[tuple[Launched, list[float]]]) -> None:
        for launched, (loss, grad_norm, change, *numbers) in done:
            if not launched.told:
                if self.control is not None:
                    self.control.pass_step(launched.step)
                continue
            self._finding.check_scale(loss)
            self.evaluations.trained(loss)
            if self._on_step is not None:
                self._on_step(StepReport(launched, loss, grad_norm, numbers))
            overflow = overflowed(self.engine, loss, grad_norm)
            if self._finding.climbing is not None:
                self._finding.climbing.follow(self.step_count, launched.tried, (loss, grad_norm, change), overflow)
                continue
            assert self.control is not None
            with self._finding.released_by_error():
                self.control.after_step(launched.step, loss, None if overflow else grad_norm, launched.skip_above)

    @property
    def _given(self) -> Given:
        """The settings as far as the engine leaves them room, and the optimizers' LR."""
        config, lr = effective_config(self.config, self.engine), initial_rate(self._groups.param_groups[0])
        return Given(config, self.steps, lr, self.use_moe)
