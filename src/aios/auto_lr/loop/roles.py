"""What the weights of a model are for; a param group's `role` is another thing, by which its rate was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

ADAPTER, ROUTER = "adapter", "router"
ATTENTION, EMBEDDING, HEAD, MLP, NORM, RECURRENT = "attention", "embedding", "head", "mlp", "norm", "recurrent"
_BY_TYPE: tuple[tuple[tuple[type[nn.Module], ...], str], ...] = (
    ((nn.Embedding, nn.EmbeddingBag), EMBEDDING),
    ((nn.RNNBase, nn.RNNCellBase), RECURRENT),
    ((nn.MultiheadAttention,), ATTENTION),
)
_BY_NAME = (
    (ROUTER, ("router",)),
    (ATTENTION, ("attn", "attention", "qkv", "q_proj", "k_proj", "v_proj", "o_proj")),
    (HEAD, ("head",)),
)
_REPARAMETRISED = "parametrizations."
"""What torch puts between a module and the tensors that one of its weights is made of."""


def roles_of(model: nn.Module) -> dict[str, str]:
    """The role of each parameter, by its name: `norm` is any vector, a bias too, and `mlp` all that is nothing else.

    Derived from the type of the module that holds it, usual names, and shape. An attribute `lr_role` of a module sets
    it for all weights within, except adapters and parts with an `lr_role` of their own; for a weight that several
    modules share, the first one that has it counts.
    """
    parts = dict(model.named_modules())
    said = {path: role for path, part in parts.items() if isinstance(role := getattr(part, "lr_role", None), str)}
    holders: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), []).append(name)
    return {
        name: _role(name, parameter, parts[_holder(name)], _told(said, holders[id(parameter)]))
        for name, parameter in model.named_parameters()
    }


def _holder(name: str) -> str:
    """The path of the module that uses the parameter of this name."""
    path, reparametrised, _ = name.partition(_REPARAMETRISED)
    return path.rstrip(".") if reparametrised else name.rpartition(".")[0]


def _told(said: Mapping[str, str], names: Iterable[str]) -> str | None:
    """What the nearest part around a parameter says, under the first of its names for which one does."""
    return next((role for role in (_innermost(said, name) for name in names) if role is not None), None)


def _innermost(said: Mapping[str, str], name: str) -> str | None:
    """What the nearest part around the parameter says."""
    while name:
        name = name.rpartition(".")[0]
        if name in said:
            return said[name]
    return None


def _role(name: str, parameter: Tensor, holder: nn.Module, said: str | None) -> str:
    if "lora_" in name:
        return ADAPTER
    named = said or next((role for types, role in _BY_TYPE if isinstance(holder, types)), None)
    if named is not None:
        return named
    if parameter.ndim < 2:
        return NORM
    return next((role for role, parts in _BY_NAME if any(part in name.lower() for part in parts)), MLP)
