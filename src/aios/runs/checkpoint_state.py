"""What a checkpoint dict must look like, so that whatever reads it finds what it expects.

A manifest vouches for the bytes, not for who wrote them. So the shape is checked once, before anything is restored:
every entry that a resume reads, its type, its range and what it must agree with.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr.saved_state import (
    ANYTHING,
    FINITE,
    POSITIVE,
    TEXT,
    Kind,
    by_key,
    one_of,
    optional,
    plain,
    record,
    series,
    whole,
)
from aios.auto_lr.state_forms import read_checkpoint
from aios.errors import shown

PER_WORKER = ("optimizer", "scaler", "rng", "data", "adaptive_lr", "lr_plan")
"""Entries that each of several independent workers has its own of: lists by rank; the last one in old ones only."""


def find_flaw(state: object, step: int) -> str | None:
    """What keeps a run from resuming at `step` from the checkpoint dict `state`; None when nothing does."""
    if not isinstance(state, dict):
        return f"it is a {type(state).__name__}, not a dict"
    entries = {**_ENTRIES, "step": one_of(step)}
    if "worker_steps" in state:
        if (flaw := series(whole(), at_least=1).find_flaw(state["worker_steps"])) is not None:
            return "worker_steps" + flaw
        count = len(state["worker_steps"])
        own = {key: entries.get(key, ANYTHING) for key in PER_WORKER if key in entries or key in state}
        entries |= {key: series(kind, at_least=count, at_most=count) for key, kind in own.items()}
    elif state.get("optimizer") is None and not state.get("zero_stage"):
        return "optimizer is None, which only DeepSpeed leaves so"
    flaw = record(entries | {"zero_stage": one_of(0, 1, 2, 3)}, may_lack=("zero_stage", "eval_id")).find_flaw(state)
    return find_steering_flaw(state) if flaw is None else flaw.removeprefix(".")


def find_steering_flaw(state: Mapping[str, Any]) -> str | None:
    """What is wrong with the learning rate's part of a checkpoint dict that is sound but for that."""
    steps = state.get("worker_steps")
    names = [name for name in ("adaptive_lr", "lr_plan") if name in state]
    parts = [{name: state[name] for name in ("step", *names)}]
    if steps is not None:
        parts = [{"step": step, **{name: state[name][rank] for name in names}} for rank, step in enumerate(steps)]
    try:
        counts = [int(read_checkpoint(part)["step_count"]) for part in parts]
    except ValueError as error:
        return str(error)
    other = next((n for n, part in zip(counts, parts, strict=True) if n != part["step"]), None)
    return None if other is None else f"adaptive_lr is of step {other}"


def _judge_torch_generator(value: Any) -> str | None:
    if (flaw := _BYTES.find_flaw(value)) is not None:
        return flaw
    try:
        torch.Generator().set_state(value)
    except (RuntimeError, TypeError):
        return f" is not {_GENERATOR}"
    return None


def _judge_python_generator(value: Any) -> str | None:
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[1], list) and type(value[0]) is int):
        return f" is {shown(value)}, not {_GENERATOR}"
    try:
        random.Random().setstate((value[0], tuple(value[1]), value[2]))
    except (TypeError, ValueError, OverflowError):
        return f" is not {_GENERATOR}"
    return optional(FINITE).find_flaw(value[2])


def _judge_moments(value: Any) -> str | None:
    """AdamW's moments of one parameter, or Muon's."""
    if not isinstance(value, dict) or set(value) not in ({"step", "exp_avg", "exp_avg_sq"}, {"momentum_buffer"}):
        return " is not what AdamW or Muon keep of a parameter"
    if not all(isinstance(t, Tensor) and t.layout == torch.strided and t.device.type == "cpu" for t in value.values()):
        return " is not what AdamW or Muon keep of a parameter"
    if "momentum_buffer" in value:
        return None if value["momentum_buffer"].is_floating_point() else " has moments of the wrong type"
    count, first, second = value["step"], value["exp_avg"], value["exp_avg_sq"]
    fine = count.numel() == 1 and count.dim() == 0 and all(t.is_floating_point() for t in value.values())
    return None if fine and first.shape == second.shape else " has moments of the wrong shape or type"


def _judge_param_group(value: Any) -> str | None:
    flaw = _PARAM_GROUP.find_flaw(value)
    if flaw is None and "names" in value and len(value["names"]) != len(value["params"]):
        return f" names {len(value['names'])} of its {len(value['params'])} parameters"
    return flaw


def _judge_scaler(value: Any) -> str | None:
    """Of a `GradScaler`; empty where it was turned off."""
    return None if value == {} else _SCALER.find_flaw(value)


_GENERATOR = "the state of a random generator"
_BYTES = plain(_GENERATOR, lambda v: isinstance(v, Tensor) and v.dtype == torch.uint8 and v.dim() == 1)
_SETTING = plain("a plain value", lambda v: v is None or type(v) in (bool, int, float, str))
_PARAM_GROUP = record({"params": series(whole()), "names": series(TEXT)}, may_lack=("names",))
_SCALER = record(
    {
        **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), POSITIVE),
        "growth_interval": whole(1),
        "_growth_tracker": whole(),
    }
)
_MOMENTS = by_key(whole(), Kind("what AdamW or Muon keep of a parameter", _judge_moments))
_GROUPS = series(Kind("a param group", _judge_param_group), at_least=1)
_ENTRIES = {
    "format_version": whole(1),
    "optimizer": optional(record({"state": _MOMENTS, "param_groups": _GROUPS})),
    "scaler": Kind("the state of a loss scale", _judge_scaler),
    "rng": record(
        {
            "torch": Kind(_GENERATOR, _judge_torch_generator),
            "cuda": series(_BYTES),
            "python": Kind(_GENERATOR, _judge_python_generator),
        }
    ),
    "data": record({"id": TEXT, "samples": whole()}),
    "config": by_key(TEXT, _SETTING),
    "eval_id": TEXT,
    "adaptive_lr": ANYTHING,
}
