"""A sparse gradient, whose norm torch cannot take, is refused by name: of a fresh model, and of one that is raced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PretrainedConfig, PreTrainedModel

from aios.integrations.accelerate import AutoLRLoop
from aios.integrations.lightning import AutoLRCallback
from integrations.steered_trainers import steered
from integrations.tiny_modules import Digits
from integrations.tiny_modules import make_trainer as make_lightning
from integrations.tiny_trainers import Windows, as_if_trained

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # Lightning's own, about workers
    pytest.mark.parametrize("trained", [False, True]),
]
REFUSED = r"the gradient of (net\.)?0\.weight is sparse and cannot be clipped"


def sparse_net(trained: bool) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(64, 16, sparse=True), nn.Linear(16, 64))
    return as_if_trained(net) if trained else net  # type: ignore[arg-type, return-value]


def loss_of(net: nn.Module, ids: Tensor) -> Tensor:
    return nn.functional.cross_entropy(net(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


def loader() -> DataLoader[Any]:
    return DataLoader(Windows(), batch_size=4)


class Sparse(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__(PretrainedConfig())
        self.net = net

    def forward(self, input_ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"loss": loss_of(self.net, input_ids)}


def test_trainer(tmp_path: Path, trained: bool) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        steered(tmp_path, Sparse(sparse_net(trained)), max_steps=330, optim="sgd").train()


class SparseModule(Digits):
    def __init__(self, net: nn.Sequential) -> None:
        super().__init__()
        self.net = net

    def loss_of(self, batch: Any) -> Tensor:
        return loss_of(self.net, batch["input_ids"])

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_lightning(tmp_path: Path, trained: bool) -> None:
    trainer = make_lightning(tmp_path, AutoLRCallback(), max_steps=330)
    with pytest.raises(ValueError, match=REFUSED):
        trainer.fit(SparseModule(sparse_net(trained)), loader())


def test_accelerate(trained: bool) -> None:
    accelerator, net = Accelerator(cpu=True), sparse_net(trained)
    net, optimizer, batches = accelerator.prepare(net, torch.optim.SGD(net.parameters(), lr=0.1), loader())
    auto = AutoLRLoop(accelerator, net, optimizer, 330, batches, loss_of=lambda batch: loss_of(net, batch["input_ids"]))
    accelerator.backward(loss_of(net, next(iter(batches))["input_ids"]))
    with pytest.raises(ValueError, match=REFUSED):
        auto.step(torch.tensor(1.0))
