"""Small, real training problems: a pure function of seed and batch number, about a millisecond a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.auto_lr.api import AutoLR

Forward = Callable[[int], Tensor]


def classifier(seed: int = 0, dropout: float = 0.0) -> tuple[nn.Module, Forward]:
    """An MLP that learns the classes a fixed random one assigns; with `dropout` it draws random numbers."""
    torch.manual_seed(1234)
    teacher = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 10))
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 10))

    def forward(batch: int) -> Tensor:
        x = torch.randn(32, 16, generator=torch.Generator().manual_seed(batch))
        with torch.no_grad():
            labels = teacher(x).argmax(1)
        return F.cross_entropy(model(x), labels)

    return model, forward


def adamw(model: nn.Module, lr: float = 1e-3, fused: bool = False) -> torch.optim.Optimizer:
    """AdamW as the trainer uses it."""
    return torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.95), fused=fused)


def sgd(model: nn.Module, lr: float = 1e-2) -> torch.optim.Optimizer:
    """SGD with momentum."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)


def train(auto: AutoLR, forward: Forward) -> tuple[list[float], list[float]]:
    """Losses and LRs of a whole run."""
    losses, lrs = [], []
    while not auto.finished:
        loss = forward(auto.batch)
        loss.backward()
        losses.append(float(loss.detach()))
        lrs.append(auto.step(loss))
    return losses, lrs


def train_plainly(optimizer: torch.optim.Optimizer, forward: Forward, steps: int) -> list[float]:
    """A bare loop at a constant rate; the losses."""
    losses = []
    for batch in range(steps):
        loss = forward(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def trained_classifier(dropout: float = 0.0) -> tuple[nn.Module, Forward]:
    """`classifier`, when it has learned: a search races it."""
    model, forward = classifier(dropout=dropout)
    train_plainly(adamw(model, 1e-2), forward, 200)
    return model, forward


def fingerprint(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Any]:
    """Everything training depends on, as plain values that compare exactly."""
    state = [optimizer.state.get(p, {}) for p in model.parameters()]
    groups = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    return [_plain(list(model.state_dict().values())), _plain(state), _plain(groups)]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def peaks_of(rates: list[float], cycle: int) -> list[float]:
    """The highest of the rates of each cycle of a climb, `cycle` steps long."""
    return [max(rates[i : i + cycle]) for i in range(0, len(rates), cycle)]
