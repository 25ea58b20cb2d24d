"""What a checkpoint dict must look like, so that whatever reads it finds what it expects.

A manifest vouches for the bytes, not for who wrote them. So the shape is checked once, before anything is restored:
every entry that a resume reads, its type, its range and what it must agree with.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from aios.auto_lr.state_forms import read_checkpoint
from aios.errors import shown

Check = Callable[[Any], "str | None"]
"""Looks at a value; says what is wrong with it, beginning with where, None when nothing is."""

_LARGEST = 2**63
_MAX = sys.float_info.max
PER_WORKER = ("optimizer", "scaler", "rng", "data", "adaptive_lr", "lr_plan")
"""Entries that each of several independent workers has its own of: lists by rank; the last one in old ones only."""


def find_flaw(state: object, step: int) -> str | None:
    """What keeps a run from resuming at `step` from the checkpoint dict `state`; None when nothing does."""
    if not isinstance(state, dict):
        return f"it is a {type(state).__name__}, not a dict"
    entries = {**_ENTRIES, "step": one_of(step)}
    if "worker_steps" in state:
        workers = list_of(whole(), at_least=1)
        if (flaw := workers(state["worker_steps"])) is not None:
            return "worker_steps" + flaw
        count = len(state["worker_steps"])
        own = {key: entries.get(key, _anything) for key in PER_WORKER if key in entries or key in state}
        entries |= {key: list_of(check, at_least=count, at_most=count) for key, check in own.items()}
    elif state.get("optimizer") is None and not state.get("zero_stage"):
        return "optimizer is None, which only DeepSpeed leaves so"
    flaw = record(entries, {"zero_stage": one_of(0, 1, 2, 3)})(state)
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


def _anything(value: Any) -> None:
    """For what is looked at elsewhere."""


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, closed: bool = False) -> Check:
    """A dict with all of `required` and any of `optional`; `closed`: with nothing else."""
    known = {**required, **(optional or {})}

    def check(value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return f" is a {type(value).__name__}, not a dict"
        missing = [name for name in required if name not in value]
        if missing:
            return f" has no {missing[0]}"
        extra = [name for name in value if name not in known]
        if closed and extra:
            return f" has the unknown entry {shown(extra[0])}"
        flaws = ((name, known[name](value[name])) for name in known if name in value)
        return next((f".{name}{flaw}" for name, flaw in flaws if flaw is not None), None)

    return check


def dict_of(key: Check, entry: Check) -> Check:
    """A dict whose every key passes `key` and every value `entry`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f" is a {type(value).__name__}, not a dict"
        for name, inner in value.items():
            flaw = key(name)
            if flaw is not None:
                return f" has a key that{flaw}"
            flaw = entry(inner)
            if flaw is not None:
                return f".{shown(name)}{flaw}"
        return None

    return check


def list_of(entry: Check, at_least: int = 0, at_most: int | None = None) -> Check:
    """A list, of `at_least` to `at_most` values, whose every value passes `entry`."""

    def check(value: Any) -> str | None:
        if not isinstance(value, list):
            return f" is a {type(value).__name__}, not a list"
        if len(value) < at_least or (at_most is not None and len(value) > at_most):
            return f" has {len(value)} entries, not {at_least if at_most == at_least else f'{at_least} or more'}"
        flaws = ((i, entry(inner)) for i, inner in enumerate(value))
        return next((f"[{i}]{flaw}" for i, flaw in flaws if flaw is not None), None)

    return check


def whole(at_least: int = 0) -> Check:
    """A whole number from `at_least` up that fits into 64 bits."""
    return lambda value: (
        None
        if type(value) is int and at_least <= value < _LARGEST
        else f" is {shown(value)}, not a whole number from {at_least} up"
    )


def number(above: float = -math.inf, at_least: float = -_MAX, at_most: float = _MAX) -> Check:
    """A finite number above `above`, from `at_least` to `at_most`."""
    limits = "".join(
        f" {word} {limit:g}"
        for word, limit in (("above", above), ("from", at_least), ("up to", at_most))
        if abs(limit) < _MAX
    )
    return lambda value: (
        None
        if type(value) in (int, float) and at_least <= value <= at_most and value > above
        else f" is {shown(value)}, not a finite number{limits}"
    )


def text(value: Any) -> str | None:
    """A string."""
    return None if isinstance(value, str) else f" is {shown(value)}, not a string"


def plain(value: Any) -> str | None:
    """A value of a setting: none, a string, a number or a switch."""
    fine = value is None or type(value) in (bool, int, float, str)
    return None if fine else f" is {shown(value)}, not a plain value"


def one_of(*allowed: Any) -> Check:
    """One of `allowed`, of the same type, too."""
    wanted = " or ".join(map(str, allowed))
    return lambda value: (
        None if any(type(value) is type(a) and value == a for a in allowed) else f" is {shown(value)}, not {wanted}"
    )


def nullable(check: Check) -> Check:
    """What passes `check`, or None."""
    return lambda value: None if value is None else check(value)


def bytes_tensor(value: Any) -> str | None:
    """The state of one of torch's generators."""
    fine = isinstance(value, Tensor) and value.dtype == torch.uint8 and value.dim() == 1
    return None if fine else f" is {shown(value)}, not the state of a random generator"


def _torch_generator(value: Any) -> str | None:
    if (flaw := bytes_tensor(value)) is not None:
        return flaw
    try:
        torch.Generator().set_state(value)
    except (RuntimeError, TypeError):
        return " is not the state of a random generator"
    return None


def _python_generator(value: Any) -> str | None:
    if not (isinstance(value, list) and len(value) == 3 and isinstance(value[1], list) and type(value[0]) is int):
        return f" is {shown(value)}, not the state of a random generator"
    try:
        random.Random().setstate((value[0], tuple(value[1]), value[2]))
    except (TypeError, ValueError, OverflowError):
        return " is not the state of a random generator"
    return nullable(number())(value[2])


def _moments(value: Any) -> str | None:
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


def _param_group(value: Any) -> str | None:
    flaw = record({"params": list_of(whole())}, {"names": list_of(text)})(value)
    if flaw is None and "names" in value and len(value["names"]) != len(value["params"]):
        return f" names {len(value['names'])} of its {len(value['params'])} parameters"
    return flaw


def _scaler(value: Any) -> str | None:
    """Of a `GradScaler`; empty where it was turned off."""
    return None if value == {} else _SCALER(value)


_SCALER = record(
    {
        **dict.fromkeys(("scale", "growth_factor", "backoff_factor"), number(above=0)),
        "growth_interval": whole(1),
        "_growth_tracker": whole(),
    }
)
_ENTRIES: dict[str, Check] = {
    "format_version": whole(1),
    "optimizer": nullable(
        record({"state": dict_of(whole(), _moments), "param_groups": list_of(_param_group, at_least=1)})
    ),
    "scaler": _scaler,
    "rng": record({"torch": _torch_generator, "cuda": list_of(bytes_tensor), "python": _python_generator}),
    "data": record({"id": text, "samples": whole()}),
    "config": dict_of(text, plain),
    "adaptive_lr": _anything,
}
