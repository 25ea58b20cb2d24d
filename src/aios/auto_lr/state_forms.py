"""What `AutoLR.state_dict` saves, and how older forms of it are read: pure functions on plain values.

Version 2 is one dict: counts, what a search found before the first step, and the controller's state. Before it AutoLR
kept the plan as a list beside two dicts, and the trainer's checkpoints had `lr_plan` beside `adaptive_lr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STATE_VERSION = 2
_COUNTS = ("step_count", "search_steps", "batch")
_CONTROL = ("base_lr", "bounds", "warmup_steps", "first_step", "anneal", "finishing", "scheduler", "recovery")


def read_state(state: Any) -> dict[str, Any]:
    """`state` in the form of version 2. Raises ValueError for anything that no version saved."""
    if not isinstance(state, Mapping):
        raise _not_ours(f"it is a {type(state).__name__}")
    if state.get("version") == STATE_VERSION:
        return _checked(dict(state))
    if {"plan", "control", "scheduler", "step_count", "batch"} <= state.keys():
        return _checked(_from_first_form(state))
    raise _not_ours(f"version = {state.get('version')!r:.40}")


def from_checkpoint(step: int, plan: Mapping[str, Any], scheduler: Mapping[str, Any] | None) -> dict[str, Any]:
    """The state of a trainer's checkpoint of `step` from before version 2: its `lr_plan` and `adaptive_lr`."""
    control = {**plan, "scheduler": scheduler}
    return _checked(_state(step, int(plan["first_step"]), step, control))


def _from_first_form(state: Mapping[str, Any]) -> dict[str, Any]:
    try:
        base_lr, bounds, warmup_steps, first_step = state["plan"]
        control = {**state["control"], "scheduler": state["scheduler"]}
        control |= {"base_lr": base_lr, "bounds": bounds, "warmup_steps": warmup_steps, "first_step": first_step}
    except (TypeError, ValueError) as error:
        raise _not_ours(f"plan = {state['plan']!r:.60}") from error
    return _state(state["step_count"], first_step, state["batch"], control)


def _state(step: int, search_steps: int, batch: int, control: dict[str, Any]) -> dict[str, Any]:
    control.setdefault("challenge", None)
    counts = {"step_count": step, "search_steps": search_steps, "batch": batch}
    return {"version": STATE_VERSION, **counts, "found": None, "control": control}


def _checked(state: dict[str, Any]) -> dict[str, Any]:
    for key in _COUNTS:
        if type(state.get(key)) is not int or state[key] < 0:
            raise _not_ours(f"{key} = {state.get(key)!r:.40}")
    for key in ("found", "control"):
        if not isinstance(state.get(key, ()), (Mapping, type(None))):
            raise _not_ours(f"{key} = {state.get(key)!r:.40}")
    control = state["control"]
    if control is not None and (missing := [key for key in _CONTROL if key not in control]):
        raise _not_ours(f"control has no {missing[0]!r}")
    return state


def _not_ours(why: str) -> ValueError:
    return ValueError(f"this is no state that AutoLR saves ({why}); hand over what its state_dict() returned")
