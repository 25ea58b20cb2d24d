"""The optimizers of a run: their param groups by role, and how a checkpoint's moments come back into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from aios.auto_lr.param_groups import BASE
from aios.errors import UserError
from aios.settings.group_roles import ADAPTER, ROUTER

BETAS = (0.9, 0.95)
"""Moments of AdamW, as is usual for language models (GPT-3, Llama)."""
_GROUPS = (("hidden", BASE), ("decay", BASE), ("no_decay", BASE), ("router", ROUTER), ("adapter", ADAPTER))
"""Name and role of each param group, in the optimizers' order; the first is Muon's."""
_MOMENTS: dict[type[torch.optim.Optimizer], str] = {torch.optim.AdamW: "exp_avg", torch.optim.Muon: "momentum_buffer"}
"""The moment, of the shape of the parameter, by which the state of an optimizer is known."""

_REMEDY = "begin another brain from the checkpoint's weights with --student-init"


def build_optimizers(model: nn.Module, lr: float, weight_decay: float, kind: str) -> tuple[torch.optim.Optimizer, ...]:
    """Fused AdamW over param groups: matrices decay; embeddings, norms and biases do not.

    With `kind` "muon" (of `TrainingConfig.optimizer`) the matrices within the blocks are Muon's (Jordan et al. 2024),
    whose updates are scaled to the size of AdamW's (Liu et al. 2025, arXiv:2502.16982), so that one learning rate suits
    both. The router of a mixture of experts and LoRA adapters are groups of their own (`role`). A group without trained
    parameters is left out. `names` are those of a group's parameters, in order.
    """
    members: dict[str, dict[str, nn.Parameter]] = {name: {} for name, _ in _GROUPS}
    for name, (param, group) in _grouped(model).items():
        if param.requires_grad:
            is_hidden = kind == "muon" and group == "decay" and ".blocks." in name
            members["hidden" if is_hidden else group][name] = param
    groups: dict[str, dict[str, Any]] = {
        name: {
            "params": list(members[name].values()),
            "names": list(members[name]),
            "name": name,
            "role": role,
            "weight_decay": 0.0 if name == "no_decay" else weight_decay,
            "initial_lr": lr,  # its base: every later LR keeps the groups' ratios
        }
        for name, role in _GROUPS
        if members[name]
    }
    hidden = groups.pop("hidden", None)
    adamw = torch.optim.AdamW(list(groups.values()), lr=lr, betas=BETAS, fused=True)
    if hidden is None:
        return (adamw,)
    return torch.optim.Muon([hidden], lr=lr, adjust_lr_fn="match_rms_adamw"), adamw


def restore_optimizers(optimizers: Sequence[torch.optim.Optimizer], state: dict[str, Any], model: nn.Module) -> None:
    """Load the moments of a checkpoint, parameter by parameter; the settings of the groups stay those of this run.

    A parameter that the checkpoint did not train (adapters added on resume), or trained by another optimizer, begins
    without moments.

    Raises:
        UserError: when the moments are those of another model.
    """
    names, places = _saved_names(state, model), [i for group in state["param_groups"] for i in group["params"]]
    if len(names) != len(places):
        raise UserError(f"The optimizer state is of {len(places)} parameters, the model has {len(names)}; {_REMEDY}.")
    saved = {name: state["state"].get(place, {}) for name, place in zip(names, places, strict=True)}
    shapes = {name: param.shape for name, param in model.named_parameters()}
    for optimizer in optimizers:
        moment = _MOMENTS[type(optimizer)]
        own = optimizer.state_dict()["param_groups"]
        now = {name: i for group in own for name, i in zip(group["names"], group["params"], strict=True)}
        moments = {name: saved[name] for name in now if moment in saved.get(name, {})}
        for name, kept in moments.items():
            if kept[moment].shape != shapes[name]:
                there, here = (tuple(shape) for shape in (kept[moment].shape, shapes[name]))
                raise UserError(
                    f"The optimizer state has moments of shape {there} for {name}, which is {here}; {_REMEDY}."
                )
        optimizer.load_state_dict({"state": {now[name]: kept for name, kept in moments.items()}, "param_groups": own})


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
