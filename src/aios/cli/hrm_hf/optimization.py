"""The optimizer of a run: its param groups by role, and how a checkpoint's moments come back into them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from aios.auto_lr.param_groups import ADAPTER, BASE, ROUTER
from aios.errors import UserError

BETAS = (0.9, 0.95)
"""Moments of AdamW, as is usual for language models (GPT-3, Llama)."""
_GROUPS = (("decay", BASE), ("no_decay", BASE), ("router", ROUTER), ("adapter", ADAPTER))
"""Name and role of each param group, in the optimizer's order."""

_REMEDY = "begin another brain from the checkpoint's weights with --student-init"


def build_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """Fused AdamW over param groups: matrices decay; embeddings, norms and biases do not.

    The router of a mixture of experts and LoRA adapters are groups of their own (`role`). A group without trained
    parameters is left out. `names` are those of a group's parameters, in order.
    """
    members: dict[str, dict[str, nn.Parameter]] = {name: {} for name, _ in _GROUPS}
    for name, (param, group) in _grouped(model).items():
        if param.requires_grad:
            members[group][name] = param
    groups: list[dict[str, Any]] = [
        {
            "params": list(members[name].values()),
            "names": list(members[name]),
            "name": name,
            "role": role,
            "weight_decay": 0.0 if name == "no_decay" else weight_decay,
            "initial_lr": lr,  # its base: every later LR keeps the groups' ratios
        }
        for name, role in _GROUPS
        if members[name]
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=BETAS, fused=True)


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], model: nn.Module) -> None:
    """Load the moments of a checkpoint, parameter by parameter; the settings of the groups stay those of this run.

    A parameter that the checkpoint did not train (adapters added on resume) begins without moments.

    Raises:
        UserError: when the moments are those of another model.
    """
    names, places = _saved_names(state, model), [i for group in state["param_groups"] for i in group["params"]]
    if len(names) != len(places):
        raise UserError(f"The optimizer state is of {len(places)} parameters, the model has {len(names)}; {_REMEDY}.")
    saved = dict(zip(names, places, strict=True))
    own = optimizer.state_dict()["param_groups"]
    now = {name: i for group in own for name, i in zip(group["names"], group["params"], strict=True)}
    moments = {name: state["state"][saved[name]] for name in now if saved.get(name) in state["state"]}
    shapes = {name: param.shape for name, param in model.named_parameters()}
    for name, moment in moments.items():
        if moment["exp_avg"].shape != shapes[name]:
            there, here = (tuple(shape) for shape in (moment["exp_avg"].shape, shapes[name]))
            raise UserError(f"The optimizer state has moments of shape {there} for {name}, which is {here}; {_REMEDY}.")
    optimizer.load_state_dict({"state": {now[name]: m for name, m in moments.items()}, "param_groups": own})


def _grouped(model: nn.Module) -> dict[str, tuple[nn.Parameter, str]]:
    """Each parameter and the name of its group, by its own name."""
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    return {name: (p, _group_of(name, p, id(p) in embeddings)) for name, p in model.named_parameters()}


def _group_of(name: str, param: nn.Parameter, is_embedding: bool) -> str:
    if ".lora_" in name:
        return "adapter"
    if name.endswith("mlp.router.weight"):
        return "router"
    return "no_decay" if is_embedding or param.dim() < 2 else "decay"


def _saved_names(state: dict[str, Any], model: nn.Module) -> list[str]:
    """Names of the parameters that a checkpoint's optimizer held, in its order."""
    if all("names" in group for group in state["param_groups"]):
        return [name for group in state["param_groups"] for name in group["names"]]
    # Checkpoints from before the roles: all matrices, routers among them, then the rest.
    groups = {name: group for name, (_, group) in _grouped(model).items() if group != "adapter"}
    return sorted(groups, key=lambda name: groups[name] == "no_decay")
