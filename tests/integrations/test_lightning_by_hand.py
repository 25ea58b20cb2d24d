"""Manual optimization in Lightning: the loss and the step have to pass `AutoLRCallback`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from aios.errors import UserError
from aios.integrations.lightning import AutoLRCallback
from integrations.tiny_modules import Digits, loader, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers and loggers


class ByHand(Digits):
    """One optimizer, stepped by `act`."""

    def __init__(self, act: Callable[[ByHand, Any, int], None]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.act = act

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self.act(self, batch, batch_idx)


def plain_backward(module: ByHand, batch: Any, number: int) -> None:
    optimizer = module.optimizers()
    optimizer.zero_grad()
    module.loss_of(batch).backward()
    optimizer.step()


def plain_optimizer(module: ByHand, batch: Any, number: int) -> None:
    optimizer = module.optimizers(use_pl_optimizer=False)
    optimizer.zero_grad()
    module.manual_backward(module.loss_of(batch))
    optimizer.step()


def nothing_of_lightnings(module: ByHand, batch: Any, number: int) -> None:
    optimizer = module.optimizers(use_pl_optimizer=False)
    optimizer.zero_grad()
    module.loss_of(batch).backward()
    optimizer.step()


@pytest.mark.parametrize("act", [plain_backward, plain_optimizer, nothing_of_lightnings])
def test_a_step_that_passes_us_by_is_refused_in_a_sentence(tmp_path: Path, act: Any) -> None:
    callback = AutoLRCallback()
    trainer = make_trainer(tmp_path, callback, max_steps=100, max_epochs=2)
    with pytest.raises(UserError, match=r"self\.manual_backward\(loss\) .* self\.optimizers\(\)"):
        trainer.fit(ByHand(act), loader())
    assert callback.auto is not None
    assert callback.auto.step_count == 0
    assert not trainer.optimizers[0]._optimizer_step_post_hooks


def every_other_batch(module: ByHand, batch: Any, number: int) -> None:
    optimizer = module.optimizers()
    module.manual_backward(module.loss_of(batch) / 2)
    if number % 2:
        optimizer.step()
        optimizer.zero_grad()


def leaving_batches_out(module: ByHand, batch: Any, number: int) -> None:
    if number % 2:
        every_other_batch(module, batch, number)


@pytest.mark.parametrize("act", [every_other_batch, leaving_batches_out])
def test_a_batch_without_a_step_is_fine(tmp_path: Path, act: Any) -> None:
    callback = AutoLRCallback(steps=20)
    trainer = make_trainer(tmp_path, callback, max_steps=20)
    trainer.fit(ByHand(act), loader())
    assert callback.auto is not None
    assert callback.auto.step_count == trainer.global_step == 20
    assert not torch.equal(ByHand(act).net[0].weight, trainer.lightning_module.net[0].weight)
