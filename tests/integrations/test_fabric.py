"""`AutoLR` in a loop written for Lightning Fabric."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from lightning.fabric.strategies import FSDPStrategy
from lightning.fabric.wrappers import _FabricOptimizer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from aios.auto_lr import AutoLR, BatchFeed
from documented import first_example
from integrations.tiny_modules import DATA, Events, named
from integrations.tiny_trainers import as_if_trained

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


def classifier(trained: bool) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return as_if_trained(model) if trained else model  # type: ignore[arg-type]


def loss_by(model: nn.Module, batch: Any) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def fabric_loop(fabric: Fabric, trained: bool, steps: int, **given: Any) -> tuple[AutoLR, Any, Events]:
    """A finished run, its optimizer and its events."""
    events: Events = []
    raw = classifier(trained)
    model, optimizer = fabric.setup(raw, torch.optim.AdamW(raw.parameters(), lr=1e-3))
    feed = BatchFeed(fabric.setup_dataloaders(DataLoader(DATA, batch_size=32, shuffle=True)))
    auto = AutoLR(model, optimizer, steps, log_fn=events.append, **given)
    auto.search(lambda i: loss_by(model, feed[i]), backward=fabric.backward)
    for batch in feed.batches(auto):
        loss = loss_by(model, batch)
        fabric.backward(loss)
        auto.step(loss)
    return auto, optimizer, events


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("trained", [False, True])
def test_a_model_is_searched_and_trained(precision: Any, trained: bool) -> None:
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    auto, optimizer, events = fabric_loop(fabric, trained, 330 if trained else 100)
    assert auto.finished
    (found,) = named(events, "adaptive_lr_race" if trained else "adaptive_lr_climb")
    assert optimizer.param_groups[0]["lr"] < found["lr"] / 10  # annealed


def test_a_race_is_the_one_of_a_loop_without_fabric() -> None:
    _, _, events = fabric_loop(Fabric(accelerator="cpu", devices=1), True, 330)
    plain: Events = []
    model = classifier(trained=True)
    auto = AutoLR(model, torch.optim.AdamW(model.parameters(), lr=1e-3), 330, log_fn=plain.append)
    feed = BatchFeed(DataLoader(DATA, batch_size=32, shuffle=True))
    auto.search(lambda i: loss_by(model, feed[i]))
    assert named(plain, "adaptive_lr_race")[0]["lr"] == named(events, "adaptive_lr_race")[0]["lr"]


def test_workers_that_share_a_model() -> None:
    with patch.dict(os.environ):  # Fabric leaves addresses in it
        fabric = Fabric(accelerator="cpu", devices=1, strategy="ddp")
        fabric.launch()
        try:
            auto, _, events = fabric_loop(fabric, True, 330)
        finally:
            torch.distributed.destroy_process_group()
    assert auto.finished
    assert auto.engine.workers is not None  # type: ignore[attr-defined]
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None


def test_weights_that_are_shared_out_are_refused() -> None:
    model = classifier(trained=False)
    wrapped: Any = _FabricOptimizer(torch.optim.AdamW(model.parameters()), FSDPStrategy())
    with pytest.raises(ValueError, match=r"shared out among workers \(FSDPStrategy\)"):
        AutoLR(model, wrapped, 100)


@pytest.mark.parametrize("trained", [False, True])
def test_a_loss_scale_is_taken_off_again(trained: bool) -> None:
    fabric, norms = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu")]), list[float]()
    with pytest.raises(ValueError, match=r"hand its scaler on, .*scaler=fabric\.strategy\.precision\.scaler"):
        fabric_loop(fabric, trained, 330)
    told = {"scaler": fabric.strategy.precision.scaler, "on_step": lambda report: norms.append(report.grad_norm)}
    auto, _, events = fabric_loop(fabric, trained, 330, **told)
    assert auto.finished
    assert named(events, "adaptive_lr_race" if trained else "adaptive_lr_climb")[0]["lr"] is not None
    assert norms[0] < 100  # not the scaled one


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(first_example("integrations.md", "Fabric"), names)
    assert names["auto"].finished
    assert "adaptive_lr_climb" in capsys.readouterr().out
