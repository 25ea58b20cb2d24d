"""A model with a recurrent part, and runs of it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from aios.auto_lr.loop.role_plan import MEASURED

FACTOR = MEASURED["recurrent"]


class Reader(nn.Module):
    """Tells from a sequence of tokens how often the first of them comes again."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.memory, self.head = nn.Embedding(8, 8), nn.GRU(8, 16, batch_first=True), nn.Linear(16, 6)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.memory(self.tokens(x))[0][:, -1])
        return out


def reader() -> tuple[Reader, Callable[[int], Tensor]]:
    torch.manual_seed(0)
    model = Reader()

    def forward(batch: int) -> Tensor:
        x = torch.randint(8, (32, 6), generator=torch.Generator().manual_seed(batch))
        return F.cross_entropy(model(x), (x == x[:, :1]).sum(1) - 1)

    return model, forward


def updates_are_whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> bool:
    """Whether the next update is what the optimizer makes of it; both go one step on."""
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    other, bare = copy.deepcopy((model, optimizer))  # a copy of an optimizer has none of its hooks
    for part, stepping in ((model, optimizer), (other, bare)):
        for weight in part.parameters():
            weight.grad = torch.ones_like(weight)
        stepping.step()
    return all(torch.equal(mine, its) for mine, its in zip(model.parameters(), other.parameters(), strict=True))


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]
