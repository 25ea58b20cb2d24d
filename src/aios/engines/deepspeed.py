"""DeepSpeed's engine (ZeRO 1 to 3) as an `Engine`: it makes, splits and applies the gradients; the LR is ours."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from aios.auto_lr.loop.snapshot import Snapshot
from aios.auto_lr.loop.update import clear_skip, must_skip, set_skip
from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.batch import Batch
from aios.distributed.workers import Workers
from aios.engines.device import Precision
from aios.engines.engine import step_numbers
from aios.engines.zero_shards import (
    ZeroShards,
    check_can_reshard,
    load_trusted,
    read_model_states,
    read_shards,
)
from aios.errors import UserError
from aios.settings.deepspeed import snapshot_obstacle

SHARDS = "deepspeed"
"""Folder of DeepSpeed's own checkpoint inside ours."""
TAG = "zero"
"""The folder in it: ours has one state only, so there is nothing to tell apart."""
_CLIENT_KEYS = ("step", "adaptive_lr", "lr_plan")
"""What DeepSpeed's checkpoint holds of the checkpoint dict, as its client state; the last one before version 2."""


@dataclass
class DeepSpeedEngine:
    """Workers train one model and split optimizer state, gradients (ZeRO 2) and weights (ZeRO 3) among them.

    The optimizer stays the caller's: DeepSpeed puts its flat pieces into `optimizer.param_groups`, so the LR found
    there is the one the update uses. ZeRO keeps fp32 weights beside those of a smaller type.
    """

    model: HRMForCausalLM
    """On `device`; under ZeRO 3 its parameters are empty outside of forward and backward."""
    optimizer: torch.optim.AdamW
    """Fused, of the model's parameters: it reads on the device whether to skip an update."""
    settings: dict[str, Any]
    """As `deepspeed_settings` makes them."""
    precision: Precision
    """As `deepspeed_precision` makes it."""
    device: torch.device
    """Where to compute."""
    workers: Workers
    """Who takes part."""
    source: str | None = None
    """The user's settings file, to name when DeepSpeed refuses it."""
    _engine: Any = field(init=False)
    _loss: Tensor = field(init=False)
    _skip_above: float = math.inf

    def __post_init__(self) -> None:
        self.settings = self.settings | _number_types(self.precision, self.settings)
        self._engine = _initialize(self)
        self._engine.checkpoint_engine.load = load_trusted  # DeepSpeed's own would unpickle anything
        self.optimizer.register_step_pre_hook(self._before_update)
        self.optimizer.register_step_post_hook(self._after_update)

    @property
    def optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        """The one there is."""
        return (self.optimizer,)

    @property
    def scales_loss(self) -> bool:
        """Whether DeepSpeed scales the loss."""
        return self.precision.loss_scaling

    @property
    def writes_parts(self) -> bool:
        """Every worker writes its piece."""
        return True

    @property
    def stage(self) -> int:
        """The ZeRO stage."""
        return int(self.settings["zero_optimization"]["stage"])

    @property
    def in_step(self) -> bool:
        """Whether every worker must run the same modules in the same order, because weights are gathered on the way."""
        return self.stage == 3

    @property
    def ema(self) -> None:
        """There is none: no worker has all weights."""
        return

    @property
    def schedules_lr(self) -> bool:
        """Whether a scheduler of DeepSpeed's sets the LR, after each update."""
        return self._engine.lr_scheduler is not None

    @property
    def snapshot_obstacle(self) -> str | None:
        """Why there are no exact snapshots; None when there are."""
        return snapshot_obstacle(self.settings)

    @property
    def shards(self) -> ZeroShards:
        """What this worker holds."""
        return ZeroShards(self._engine.optimizer, self.stage, self.workers.rank, self.workers.world_size)

    def accumulate(
        self, batch: Batch, asked: Tensor, micro_batches: int, last: bool, skip_above: float = math.inf
    ) -> Tensor:
        """As `TrainEngine.accumulate`; DeepSpeed divides the gradient by the number of micro-batches itself.

        There is no update on the way, so `skip_above` has nothing to skip.
        """
        out = self._engine(**batch._asdict())
        self.backward(out.loss)
        if not last:
            self._engine.step()  # only counts the micro-batch
        return step_numbers(out, asked) / micro_batches

    def backward(self, loss: Tensor) -> None:
        """As `Engine.backward`."""
        self._engine.backward(loss)

    def average(self, numbers: Tensor) -> Tensor:
        """As `TrainEngine.average`: one small collective per step.

        ZeRO reduces gradients in its own buckets, where the numbers cannot travel along as they do under DDP.
        """
        dist.all_reduce(numbers)
        return numbers / self.workers.world_size

    def update(self, loss: Tensor, skip_above: float) -> Tensor:
        """As `Engine.update`; infinite where the gradient was not finite, which DeepSpeed skips on all workers."""
        self._loss, self._skip_above = loss, skip_above
        self._engine.step()
        return torch.as_tensor(self._engine.get_global_grad_norm(), dtype=torch.float32, device=self.device)

    @property
    def weights(self) -> Sequence[Tensor]:
        """This worker's flat fp32 pieces."""
        return self.shards.masters

    def agreed(self, number: Tensor) -> Tensor:
        """As `Engine.agreed`."""
        return self.average(number.clone())

    def snapshot(self) -> Snapshot:
        """A copy of this worker's pieces, to be restored by all workers together."""
        return _ZeroSnapshot(self)

    @contextmanager
    def whole_model(self) -> Iterator[None]:
        """While the block runs every worker holds all weights; all must enter it."""
        from deepspeed.runtime.zero import GatheredParameters

        with GatheredParameters(list(self.model.parameters()), enabled=self.stage == 3):
            yield

    def optimizer_state(self) -> None:
        """DeepSpeed writes the optimizer itself, each worker its piece."""
        return

    def save(self, folder: Path, state: Mapping[str, Any]) -> None:
        """As `TrainEngine.save`; returns when all workers have written theirs."""
        own = {key: state[key] for key in _CLIENT_KEYS if key in state}
        self._engine.save_checkpoint(str(folder / SHARDS), tag=TAG, client_state=own, save_latest=False)

    def load(self, folder: Path) -> dict[str, Any]:
        """As `TrainEngine.load`, whatever the number of workers that saved.

        The settings of the param groups stay those of this run, but for the LR where DeepSpeed schedules it.

        Raises:
            UserError: when a setting ties the checkpoint to the number of workers that saved it.
        """
        kept = ("lr",) if self.schedules_lr else ()
        own = [{k: v for k, v in g.items() if k not in ("params", *kept)} for g in self.optimizer.param_groups]
        states = read_model_states(folder / SHARDS / TAG)
        if states["dp_world_size"] == self.workers.world_size:
            self._engine.load_checkpoint(str(folder / SHARDS), tag=TAG)
        else:
            self._reshard(folder / SHARDS / TAG, states)
        for group, settings in zip(self.optimizer.param_groups, own, strict=True):
            group.update(settings)
        return {key: states[key] for key in _CLIENT_KEYS if key in states}

    def _reshard(self, folder: Path, states: Mapping[str, Any]) -> None:
        saved, now = states["dp_world_size"], self.workers.world_size
        check_can_reshard(self.settings, self.snapshot_obstacle, saved, now)
        shards = read_shards(folder)
        self.shards.load(shards)
        self._engine.global_steps, self._engine.skipped_steps = states["global_steps"], states["skipped_steps"]
        vars(self._engine.optimizer.loss_scaler).update(vars(shards[0]["loss_scaler"]))
        if self.schedules_lr:
            self._engine.lr_scheduler.load_state_dict(states["lr_scheduler"])
            moments = shards[0]["optimizer_state_dict" if self.stage == 3 else "base_optimizer_state"]
            for group, before in zip(self.optimizer.param_groups, moments["param_groups"], strict=True):
                group["lr"] = before["lr"]

    def _before_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """Between DeepSpeed's clipping and its update: tell the fused optimizer whether to leave all as it is."""
        norm = torch.as_tensor(self._engine.optimizer._global_grad_norm, device=self.device)
        skip = must_skip(self._loss, norm, self._skip_above)
        place = next(p.device for group in optimizer.param_groups for p in group["params"])  # CPU when offloaded
        set_skip(optimizer, skip.to(place))

    @staticmethod
    def _after_update(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        clear_skip(optimizer)


class _ZeroSnapshot(Snapshot):
    """A snapshot of the flat fp32 pieces: the model's weights follow from them."""

    def __init__(self, engine: DeepSpeedEngine) -> None:
        self._shards = engine.shards
        self._loss_scaler = self._shards.zero.loss_scaler
        self._loss_scale = dict(vars(self._loss_scaler))
        super().__init__(engine.model, engine.optimizer, tensors=[*self._shards.masters, *engine.model.buffers()])

    def restore(self) -> None:
        """As `Snapshot.restore`; all workers together."""
        super().restore()
        vars(self._loss_scaler).update(self._loss_scale)
        self._shards.publish()


def deepspeed_precision(precision: Precision) -> Precision:
    """The number types under DeepSpeed: it keeps fp32 weights itself, so the model's can be all of the smaller type."""
    if precision.loss_scaling:
        return Precision(torch.float16, None, loss_scaling=True)
    autocast = precision.autocast if precision.weights is torch.float32 else None
    return Precision(precision.weights, autocast, loss_scaling=False)


def _number_types(precision: Precision, asked: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's sections for `precision`, with what the user's file says about them besides."""
    if precision.weights is torch.float16:
        return {"fp16": {**asked.get("fp16", {}), "enabled": True}}
    if precision.weights is torch.bfloat16:
        return {"bf16": {**asked.get("bf16", {}), "enabled": True}}
    if precision.autocast is not None:
        # No safe modules, unless the file names some: gradients travel in fp32, as they do under DDP.
        kind = str(precision.autocast).removeprefix("torch.")
        section = {"lower_precision_safe_modules": [], **asked.get("torch_autocast", {})}
        return {"torch_autocast": {**section, "enabled": True, "dtype": kind}}
    return {}


def _initialize(ours: DeepSpeedEngine) -> Any:
    """DeepSpeed's engine around model and optimizer, in the process group that there is.

    Raises:
        UserError: when DeepSpeed refuses the user's settings.
    """
    os.environ["DS_ACCELERATOR"] = ours.device.type  # or it would take a GPU that --device leaves alone
    if ours.device.type == "cuda":
        os.environ["LOCAL_RANK"] = str(ours.device.index)  # which DeepSpeed takes for the number of the device
    # DeepSpeed calls collectives by their older names.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    import deepspeed

    deepspeed.utils.logger.setLevel("ERROR")
    # Else DeepSpeed would spend a minute compiling a collective for CPUs on first use, if there is a compiler.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    try:
        engine, *_ = deepspeed.initialize(
            model=ours.model, optimizer=ours.optimizer, config=ours.settings, dist_init_required=False
        )
    except (deepspeed.DeepSpeedConfigError, AssertionError, KeyError, TypeError, ValueError) as error:
        if ours.source is None:
            raise
        raise UserError(f"DeepSpeed refuses the settings in {ours.source} ({error}); correct the file.") from error
    return engine
