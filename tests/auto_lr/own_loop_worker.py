"""One of two workers: a plain loop with AutoLR around DistributedDataParallel, each on batches of its own."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed import destroy_process_group, get_rank, init_process_group

from aios.auto_lr import AutoLR

NOT_FINITE = 150
"""The batch whose loss one worker hands in as NaN."""
WRAPPED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda ddp: ddp,
    "compiled": lambda ddp: torch.compile(ddp, backend="eager"),
    "in a list": lambda ddp: nn.ModuleList([ddp]),
}


def main(trained: str, wrapped: str, rank: str, folder: str) -> None:
    """Train, and write the rates and the weights into `folder`."""
    init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=int(rank), world_size=2)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1))
    if trained == "trained":
        train_before(net)
    ddp = nn.parallel.DistributedDataParallel(net)
    model, rates = WRAPPED[wrapped](ddp), []
    called = ddp if wrapped == "in a list" else model
    auto = AutoLR(model, torch.optim.AdamW(model.parameters()), 240)

    def loss_of(batch: int) -> Tensor:
        return loss_on(called, 2 * batch + get_rank())

    auto.search(loss_of)
    while not auto.finished:
        loss = loss_of(auto.batch)
        loss.backward()
        is_nan = auto.batch == NOT_FINITE and get_rank() == 1
        rates.append(auto.step(loss.detach() * math.nan if is_nan else loss))
    torch.save({"rates": rates, "weights": net.state_dict()}, f"{folder}/{rank}.pt")
    destroy_process_group()


def loss_on(model: nn.Module, number: int) -> Tensor:
    """Of a batch that its number makes."""
    x = torch.randn(32, 8, generator=torch.Generator().manual_seed(number))
    return nn.functional.mse_loss(model(x), x.sin().sum(1, keepdim=True))


def train_before(net: nn.Module) -> None:
    """Make it a model that was trained before."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for number in range(400):
        optimizer.zero_grad()
        loss_on(net, 10**6 + number).backward()
        optimizer.step()


if __name__ == "__main__":
    main(*sys.argv[1:])
