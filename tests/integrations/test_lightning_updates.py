"""Updates that the module makes in its own way, under automatic optimization."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from aios.integrations.lightning import AutoLRCallback
from integrations.test_lightning import Handed
from integrations.tiny_modules import Digits, Events, loader, make_trainer, named

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class EveryOther(Digits):
    """Steps as Lightning's documentation of `optimizer_step` does, and keeps its losses."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.losses = list[float]()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        self.losses.append(float(loss))
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, closure: Any = None) -> None:
        if batch_idx % 2:
            optimizer.step(closure=closure)
        else:
            closure()


@pytest.mark.parametrize("told", [True, False])
def test_a_module_that_steps_in_every_other_batch(tmp_path: Path, caplog: pytest.LogCaptureFixture, told: bool) -> None:
    events: Events = []
    callback, module = AutoLRCallback(steps=84 if told else None, log_fn=events.append), EveryOther()
    handed = Handed(callback)
    trainer = make_trainer(tmp_path, callback, handed, max_steps=-1, max_epochs=3)  # of 56 batches
    trainer.fit(module, loader())
    pairs = zip(module.losses[::2], module.losses[1::2], strict=True)
    assert handed.losses == pytest.approx([(one + other) / 2 for one, other in pairs])
    assert len(handed.losses) == 84
    assert bool(named(events, "adaptive_lr_anneal")) is told
    assert caplog.text.count("AutoLRCallback(steps=...)") == (0 if told else 1)
