"""This worker's share of the fp32 weights and moments under ZeRO: where it lies, and a copy of it from other shards.

ZeRO 1 and 2 flatten each param group and cut it into one piece per worker. ZeRO 3 cuts each parameter, and lays a
worker's pieces of a group side by side. Either way the optimizer sees one flat tensor per group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr.saved_state import record, whole
from aios.errors import UserError, is_out_of_memory
from aios.runs.checkpoints import REMEDY, UNREADABLE

_MASTERS = {True: "fp32_partitioned_groups_flat", False: "single_partition_of_fp32_groups"}
"""Where the ZeRO optimizer keeps them, under ZeRO 3 and below."""
_FP32 = {True: "fp32_flat_groups", False: "single_partition_of_fp32_groups"}
_MOMENTS = {True: "optimizer_state_dict", False: "base_optimizer_state"}
"""DeepSpeed's names in an optimizer shard, under ZeRO 3 and below."""
_SHARD_NAME = re.compile(r".*zero_pp_rank_([0-9]{1,9})_.*optim_states\.pt")
_MODEL_STATES = record({"dp_world_size": whole(1), **dict.fromkeys(("global_steps", "skipped_steps"), whole())})


@dataclass(frozen=True)
class ZeroShards:
    """The flat fp32 tensors that the optimizer of this worker updates."""

    zero: Any
    """DeepSpeed's ZeRO optimizer."""
    stage: int
    """1 to 3."""
    rank: int
    """Of this worker."""
    world_size: int
    """How many pieces there are."""

    @property
    def masters(self) -> list[Tensor]:
        """The flat tensors, one per group."""
        return list(getattr(self.zero, _MASTERS[self.stage == 3]))

    def publish(self) -> None:
        """Make the model's weights those of `masters`, on all workers together."""
        if self.stage < 3:
            self.zero.update_lp_params()
            return
        # As ZeRO 3 ends its own update: release what is gathered, copy, gather anew what is small enough to stay.
        self.zero._partition_all_parameters()
        for group in range(len(self.masters)):
            self.zero._reassign_or_swap_out_partitioned_parameters(group)
        lasting = self.zero.persistent_parameters
        if lasting:
            lasting[0].all_gather(lasting)

    def load(self, shards: Sequence[Mapping[str, Any]]) -> None:
        """Take weights and moments from the shards of all workers of another run, of any number; then `publish`."""
        optimizer = self.zero.optimizer
        for group, master in enumerate(self.masters):
            master.detach().copy_(self._own_piece(group, [s[_FP32[self.stage == 3]][group] for s in shards]))
            moments = [s[_MOMENTS[self.stage == 3]]["state"].get(group, {}) for s in shards]
            optimizer.state[master] = {name: self._moment(group, name, moments, master) for name in moments[0]}
        self.publish()

    def _moment(self, group: int, name: str, moments: list[dict[str, Any]], master: Tensor) -> Any:
        values = [m[name] for m in moments]
        if not isinstance(values[0], Tensor) or values[0].dim() == 0:  # the step count, the same on all
            return values[0]
        return self._own_piece(group, values).to(master.device, master.dtype)

    def _own_piece(self, group: int, pieces: list[Tensor]) -> Tensor:
        """This worker's piece of a group of which `pieces` are all that the saving workers had."""
        if self.stage < 3:
            whole = torch.cat([piece.flatten() for piece in pieces])[: sum(self._sizes(group))]
            return _cut(whole, self.masters[group].numel(), self.rank)
        own, start = [], 0
        for size in self._sizes(group):
            width = -(-size // len(pieces))
            whole = torch.cat([piece[start : start + width] for piece in pieces])[:size]
            own.append(_cut(whole, -(-size // self.world_size), self.rank))
            start += width
        return torch.cat(own)

    def _sizes(self, group: int) -> list[int]:
        """Elements of each parameter of a group, in the order they lie in."""
        if self.stage == 3:
            return [int(p.ds_numel) for p in self.zero.fp16_groups[group]]
        return [p.numel() for p in self.zero.bit16_groups[group]]


def _cut(whole: Tensor, width: int, number: int) -> Tensor:
    """Piece `number` of a vector cut into pieces of `width`, the last ones filled up with zeros."""
    piece = whole[number * width : (number + 1) * width]
    return torch.nn.functional.pad(piece, (0, width - piece.numel()))


def read_shards(folder: Path) -> list[dict[str, Any]]:
    """The optimizer shards in a DeepSpeed checkpoint folder, in the order of the workers that saved them.

    Raises:
        UserError: when one of them cannot be read or is none.
    """
    found = ((_SHARD_NAME.fullmatch(f.name), f) for f in folder.iterdir())
    files = {int(name[1]): f for name, f in found if name is not None}
    shards = (load_trusted(files[rank]).get("optimizer_state_dict") for rank in sorted(files))
    whole_shards = [shard for shard in shards if isinstance(shard, dict)]
    if not files or len(whole_shards) < len(files):
        raise UserError(f"{folder} holds no optimizer state of DeepSpeed's; {REMEDY}.")
    return whole_shards


def read_model_states(folder: Path) -> dict[str, Any]:
    """What DeepSpeed saved beside the shards: its scheduler, its counters and the client state.

    Raises:
        UserError: when it cannot be read, or something is missing in it.
    """
    files = sorted(folder.glob("*model_states.pt"))
    if not files:
        raise UserError(f"{folder} holds no model states of DeepSpeed's; {REMEDY}.")
    states = load_trusted(files[0])
    flaw = _MODEL_STATES.find_flaw(states)
    if flaw is not None:
        raise UserError(f"{files[0]} is not what DeepSpeed saves: it{flaw}; {REMEDY}.")
    return states


def load_trusted(path: Path | str, map_location: Any = "cpu") -> dict[str, Any]:
    """A file of DeepSpeed's, with no more of its classes than its own checkpoints need: runs no code from the file.

    Raises:
        UserError: when it cannot be read.
    """
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    with torch.serialization.safe_globals([DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]):
        try:
            loaded = torch.load(path, map_location=map_location, weights_only=True)
        except UNREADABLE as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"{path} cannot be read ({type(error).__name__}); {REMEDY}.") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} holds a {type(loaded).__name__}, not a dict; {REMEDY}.")
    return loaded


def check_can_reshard(settings: Mapping[str, Any], obstacle: str | None, saved: int, now: int) -> None:
    """Check that what `saved` workers wrote can be split anew among `now`.

    Raises:
        UserError: when a setting keeps parameters in an order, or a place, that depends on the number of workers.
    """
    zero = settings["zero_optimization"]
    why = "round_robin_gradients" if zero.get("round_robin_gradients") else obstacle
    if why is not None and saved != now:
        raise UserError(
            f"The checkpoint was saved by {saved} workers and {why} ties it to that number, but there are {now}; "
            f"resume with --world-size {saved}."
        )
