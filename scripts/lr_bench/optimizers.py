"""How a workload's weights are updated; the learning rate is all that the benchmark varies."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from lion_pytorch import Lion
from torch import nn

from aios.auto_lr.loop.weights import trainable

WEIGHT_DECAY = 0.1
MakeOptimizers = Callable[[nn.Module, float], list[torch.optim.Optimizer]]
"""The optimizers of a model at a learning rate."""


def adamw(
    model: nn.Module, lr: float, beta2: float = 0.95, weight_decay: float = WEIGHT_DECAY
) -> list[torch.optim.Optimizer]:
    """AdamW, fused."""
    return [
        torch.optim.AdamW(
            trainable(model.parameters()), lr=lr, betas=(0.9, beta2), weight_decay=weight_decay, fused=True
        )
    ]


def sgd(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """SGD with momentum 0.9."""
    return [torch.optim.SGD(trainable(model.parameters()), lr=lr, momentum=0.9)]


def nesterov(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """SGD with Nesterov's momentum and some weight decay, as convolutional nets are trained."""
    return [torch.optim.SGD(trainable(model.parameters()), lr=lr, momentum=0.9, nesterov=True, weight_decay=5e-4)]


def adam(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Adam with torch's defaults."""
    return [torch.optim.Adam(trainable(model.parameters()), lr=lr)]


def nadam(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """NAdam with torch's defaults."""
    return [torch.optim.NAdam(trainable(model.parameters()), lr=lr)]


def adagrad(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Adagrad with torch's defaults."""
    return [torch.optim.Adagrad(trainable(model.parameters()), lr=lr)]


def rmsprop(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """RMSprop with torch's defaults."""
    return [torch.optim.RMSprop(trainable(model.parameters()), lr=lr)]


def lion(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Lion (arXiv 2302.06675) from the package lion-pytorch."""
    return [Lion(trainable(model.parameters()), lr=lr, weight_decay=WEIGHT_DECAY)]


def muon(model: nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices within the blocks, AdamW for the rest, at one rate."""
    inner = {id(p) for name, p in model.named_parameters() if p.ndim == 2 and "blocks" in name}
    matrices, rest = _split(trainable(model.parameters()), lambda p: id(p) in inner)
    return [
        torch.optim.Muon(matrices, lr=lr, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.95), weight_decay=WEIGHT_DECAY),
    ]


class _Joined(torch.optim.Optimizer):
    """Several optimizers as one, for schedulers that know only one."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        super().__init__([p for part in parts for group in part.param_groups for p in group["params"]], {})
        self.param_groups = [group for part in parts for group in part.param_groups]
        self._parts = parts

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        """Let each make its update."""
        for part in self._parts:
            part.step()


def joined(parts: list[torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """All of `parts` as one optimizer."""
    return parts[0] if len(parts) == 1 else _Joined(parts)


def _split(
    parameters: Iterable[nn.Parameter], chosen: Callable[[nn.Parameter], bool]
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = list(parameters)
    return [p for p in parameters if chosen(p)], [p for p in parameters if not chosen(p)]


adamw_slow = partial(adamw, beta2=0.99)
"""With the longer memory that character models are trained with."""
adamw_default = partial(adamw, beta2=0.999, weight_decay=0.01)
"""With torch's defaults."""
