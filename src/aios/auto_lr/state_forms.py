"""The forms in which `AutoLR.state_dict` has been saved, read into the one of today: pure functions on plain values.

Version 2 is one dict: counts, what a search found before the first step, and the controller's state. Before it AutoLR
kept the plan as a list beside two dicts, and the trainer's checkpoints had `lr_plan` beside `adaptive_lr`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aios.auto_lr.climb import Climb
from aios.auto_lr.control import LearningRateControl
from aios.auto_lr.overfit import OverfitWatch
from aios.auto_lr.saved_state import COUNT, MAPPING, RATE, by_name, check_state, check_version, optional, row
from aios.auto_lr.search import Found

STATE_VERSION = 2
_WHAT = "AutoLR state"
_STATE = {
    **dict.fromkeys(("step_count", "search_steps", "batch"), COUNT),
    **dict.fromkeys(("found", "control", "climb", "evaluations", "roles"), optional(MAPPING)),
}
_FIRST_FORM = {
    "step_count": COUNT,
    "batch": COUNT,
    "control": MAPPING,
    "scheduler": MAPPING,
    "plan": row(RATE, optional(row(RATE, RATE)), COUNT, COUNT),
}


def read_state(state: Any) -> Mapping[str, Any]:
    """`state` in the form of version 2, checked as a whole. Raises ValueError for anything that no version saved."""
    if isinstance(state, Mapping) and "plan" in state:
        return _checked(_from_first_form(state))
    check_state(_WHAT, state, {})
    check_version(_WHAT, state, STATE_VERSION)
    return _checked(state)


def read_checkpoint(entries: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a trainer's checkpoint dict of this version or an older one (`lr_plan` beside `adaptive_lr`) holds.

    Raises ValueError for anything that no version saved.
    """
    if "lr_plan" not in entries:
        return read_state(entries.get("adaptive_lr"))
    check_state("checkpoint", entries, {"step": COUNT, "adaptive_lr": optional(MAPPING)})
    plan, step = entries["lr_plan"], entries["step"]
    check_state("learning rate plan", plan, {"first_step": COUNT})
    return _checked(_state(step, plan["first_step"], step, {**plan, "scheduler": entries["adaptive_lr"]}))


def _from_first_form(state: Mapping[str, Any]) -> dict[str, Any]:
    check_state(_WHAT, state, _FIRST_FORM)
    base_lr, bounds, warmup_steps, first_step = state["plan"]
    control = {**state["control"], "scheduler": state["scheduler"]}
    control |= {"base_lr": base_lr, "bounds": bounds, "warmup_steps": warmup_steps, "first_step": first_step}
    return _state(state["step_count"], first_step, state["batch"], control)


def _state(step: int, search_steps: int, batch: int, control: dict[str, Any]) -> dict[str, Any]:
    counts = {"step_count": step, "search_steps": search_steps, "batch": batch}
    return {"version": STATE_VERSION, **counts, "found": None, "control": control}


def _checked(state: Mapping[str, Any]) -> Mapping[str, Any]:
    check_state(_WHAT, state, _STATE, may_lack=("climb", "evaluations", "roles"))
    control, step = state["control"], state["step_count"]
    if control is not None:
        LearningRateControl.check_state(control)
        if control["first_step"] > step:
            raise ValueError(f"{_WHAT}: it begins at step {control['first_step']}, after step_count = {step}")
    if state["found"] is not None:
        Found.from_dict(state["found"])
    if state.get("climb") is not None:
        check_state("climbing state", state["climb"], {"climb": MAPPING, "kept_at": COUNT})
        Climb.check_state(state["climb"]["climb"])
    if (roles := state.get("roles")) is not None:
        check_state("roles", roles, {"factors": by_name(RATE), "one_rate": RATE, "usual": RATE}, may_lack=("usual",))
    if state.get("evaluations") is not None:
        OverfitWatch.check_state(state["evaluations"])
    return state
