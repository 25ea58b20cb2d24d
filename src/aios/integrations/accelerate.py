"""`AutoLR` in a loop written for Accelerate: `AutoLRLoop`, in place of the scheduler and of `optimizer.step()`."""

# ruff: noqa: E402 - a missing framework is named before anything else is loaded
from __future__ import annotations

from aios.integrations.versions import require

require("accelerate")

import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from aios.auto_lr import AutoLR, AutoLRConfig
from aios.auto_lr.events import LogFn
from aios.auto_lr.loop.trial import EngineTrial, run_of
from aios.auto_lr.loop.weights import held_by
from aios.auto_lr.param_groups import as_several
from aios.errors import UserError
from aios.integrations.accelerate_checkpoints import InCheckpoints
from aios.integrations.accelerated import (
    ahead_of,
    check_whole_model,
    inner,
    length_of,
    mean_over_workers,
    scaler_of,
)
from aios.integrations.framework_step import FrameworkStep
from aios.integrations.look_ahead import Ahead, LookAhead, begins_anew
from aios.integrations.replacing import replaced
from aios.integrations.reporting import Tally, logger
from aios.integrations.wording import overruled

_steered: weakref.WeakKeyDictionary[torch.optim.Optimizer, weakref.ref[AutoLRLoop]] = weakref.WeakKeyDictionary()
_APART = (
    "the workers' gradients are not averaged before this step, so each would decide alone: train without LocalSGD, and "
    "call step(loss) outside no_sync()"
)


class AutoLRLoop:
    """Finds and steers the learning rate of a loop of `steps` optimizer steps, whose parts Accelerate has prepared.

    Call `step(loss)` after each `accelerator.backward(loss)`; it clips and updates where gradients are synchronised.
    With the `loader` rates can be raced, which a model that was trained before needs; `loss_of(batch)` is the training
    loss then, by default `model(**batch).loss`. The state goes with `accelerator.save_state`. Leave a loop before its
    end by `release()`.

    Raises UserError for workers that share out the weights or (from `step`) do not average their gradients, an
    optimizer that another loop steers and several models; ValueError as `AutoLR` does; RunError (from `step`) when the
    run cannot be saved.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        model: nn.Module,
        optimizer: Any,
        steps: int,
        loader: Any = None,
        loss_of: Callable[[Any], Tensor] | None = None,
        config: AutoLRConfig | None = None,
        log_fn: LogFn | None = None,
    ) -> None:
        check_whole_model(accelerator)
        if not isinstance(model, nn.Module):
            raise UserError("AutoLRLoop takes one model: hand several in as one, torch.nn.ModuleList(models)")
        self._accelerator, self._model, self._loader = accelerator, model, loader
        self._shared = [part for part in model.modules() if isinstance(part, nn.parallel.DistributedDataParallel)]
        self._optimizers = as_several(optimizer)
        self._loss_of = loss_of or partial(_models_own_loss, model)
        self._config = config or AutoLRConfig()
        self._tally = Tally(log_fn)
        self._ahead = LookAhead(self._begin_look)
        self._check_free()
        torchs, scaler = [inner(one) for one in self._optimizers], scaler_of(accelerator)
        self.auto = AutoLR(accelerator.unwrap_model(model), torchs, steps, self._config, self._tally, scaler=scaler)
        """The controller."""
        self._step = FrameworkStep(self.auto, torchs, scaler, partial(mean_over_workers, accelerator))
        _steered.update({one: weakref.ref(self) for one in torchs})
        self._searched = False
        self._seen = 0  # micro-batches
        self._in_step = 0  # of these, since the last update
        self._checkpoints = InCheckpoints(accelerator, self, torchs)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.auto.finished

    def step(self, loss: Tensor) -> None:
        """Take the loss of a micro-batch whose gradients were just computed; update where they are complete."""
        if not self._searched:
            self._searched = True
            self._say_overruled()
            if self.auto.obstacle is None:
                self._search()
        if self._in_step == 0:
            self._step.begin()
        self._step.see(loss / self._accelerator.gradient_accumulation_steps)
        self._seen, self._in_step = self._seen + 1, self._in_step + 1
        if self._accelerator.sync_gradients:
            self._update()

    def numbers(self) -> dict[str, float]:
        """For `accelerator.log`: the learning rate, under the name that Trainer gives it, too, and `auto_lr/...`."""
        rate = float(self._optimizers[0].param_groups[0]["lr"])
        return {"learning_rate": rate, **self._tally.numbers(self.auto, rate)}

    def report_eval(self, loss: float) -> bool:
        """Hand on the loss of an evaluation; returns whether it is the best so far."""
        return self.auto.report_eval(loss)

    def release(self) -> None:
        """Let go of optimizers and checkpoints, for another loop to take them; one that has `finished` does so then."""
        self._step.release()
        self._checkpoints.leave()
        for optimizer in map(inner, self._optimizers):
            _steered.pop(optimizer, None)

    def state_dict(self) -> dict[str, Any]:
        """Plain values; `accelerator.save_state` asks for it."""
        return {"auto_lr": self.auto.state_dict(), "seen": self._seen, "told": self._tally.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; `accelerator.load_state` calls it when all else is loaded."""
        self.auto.load_state_dict(state["auto_lr"])
        self._tally.load_state_dict(state.get("told"))
        self._seen, self._searched = state["seen"], True

    def _check_free(self) -> None:
        for optimizer in map(inner, self._optimizers):
            kept = _steered.get(optimizer)
            known = kept() if kept is not None else None
            if known is not None and not known.finished:
                raise UserError("an AutoLRLoop steers this optimizer already: release() it to leave it before its end")
            if known is not None:
                known.release()

    def _search(self) -> None:
        """Find the rate before the first step, whose gradients are already there and are put aside meanwhile.

        That may be in the middle of an accumulation, where DDP keeps gradients to itself: not those of a trial.
        """
        parameters = [p for p in self._trained() if p.grad is not None]
        gradients = [p.grad.clone() for p in parameters if p.grad is not None]
        self._clear_gradients()
        with self._ahead, ExitStack() as shares:
            for part in self._shared:
                shares.enter_context(replaced(part, "require_backward_grad_sync", True))
            self.auto.search(self._trial())
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient

    def _say_overruled(self) -> None:
        scheduled = [one for scheduler in self._accelerator._schedulers for one in scheduler.optimizers]
        if any(inner(one) is inner(ours) for one in scheduled for ours in self._optimizers):
            logger.warning(overruled("the scheduler that was prepared"))

    def _update(self) -> None:
        if not all(part.require_backward_grad_sync for part in self._shared):
            raise UserError(_APART)
        norm = self._accelerator.clip_grad_norm_(self._trained(), self._config.max_grad_norm)
        self._step.decide(torch.as_tensor(norm, dtype=torch.float32), self._accelerator.gradient_accumulation_steps)
        for optimizer in self._optimizers:
            optimizer.step()
        self._step.updated()
        self._clear_gradients()
        self._in_step = 0
        with self._ahead:
            self._step.follow()

    def _trained(self) -> list[Tensor]:
        """What the optimizers hold: weights of the model, and of a loss that has some."""
        return held_by([inner(optimizer) for optimizer in self._optimizers], self._model)

    def _clear_gradients(self) -> None:
        for optimizer in self._optimizers:
            inner(optimizer).zero_grad(set_to_none=True)

    def _trial(self) -> EngineTrial | None:
        """None where nothing can be tried."""
        if not begins_anew(self._loader):
            return None
        accelerator, mean = self._accelerator, partial(mean_over_workers, self._accelerator)
        micro_batches = accelerator.gradient_accumulation_steps  # `backward` divides by it
        run = run_of(lambda number: self._loss_of(self._ahead[number]), micro_batches, accelerator.backward, mean)
        return EngineTrial(self.auto.model, self.auto.engine, run)

    def _begin_look(self) -> Ahead:
        first = self.auto.batch * self._accelerator.gradient_accumulation_steps
        per_epoch = length_of(self._loader, unknown=sys.maxsize)  # so all of it counts as one epoch
        return ahead_of(self._loader, first, self._seen, per_epoch)


def _models_own_loss(model: nn.Module, batch: Any) -> Tensor:
    """What the model says it is. UserError where it says nothing, or `batch` does not name what it is to be given."""
    loss: Tensor | None = getattr(model(**batch), "loss", None) if hasattr(batch, "keys") else None
    if loss is None:
        raise UserError(
            f"the batches are {type(batch).__name__}s, of which the model tells no loss: say "
            "AutoLRLoop(..., loss_of=lambda batch: ...), the training loss of a batch"
        )
    return loss
