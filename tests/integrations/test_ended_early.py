"""A training that is over before the rate has gone down is told so, in one sentence."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import EarlyStopping
from transformers import TrainerCallback

from aios.auto_lr import AutoLRConfig
from aios.integrations.lightning import AutoLRCallback
from integrations import tiny_modules
from integrations.steered_trainers import steered
from integrations.tiny_modules import Digits, loader
from integrations.tiny_trainers import StopAt

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's own, about workers


class EverySecond(Digits):
    """Makes an update in every second batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        optimizer = self.optimizers()
        self.manual_backward(self.loss_of(batch) / 2)
        if batch_idx % 2:
            optimizer.step()
            optimizer.zero_grad()


class Interrupts(pl.Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 5:
            raise RuntimeError("somebody's own")


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [message for message in caplog.messages if "steps before AutoLR's end" in message]


def fit(tmp_path: Path, module: Digits, callback: AutoLRCallback, *others: pl.Callback, **given: Any) -> None:
    trainer = tiny_modules.make_trainer(tmp_path, callback, *others, **given)
    trainer.fit(module, loader(), loader(64))


def test_where_time_is_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fit(tmp_path, Digits(), AutoLRCallback(), max_steps=-1, max_epochs=10_000, max_time=timedelta(seconds=0.5))
    (said,) = told(caplog)
    assert "say AutoLRCallback(steps=...)" in said


def test_where_fewer_updates_come_than_lightning_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    batches, given = len(loader()), {"max_steps": -1, "max_epochs": 1}
    fit(tmp_path, EverySecond(), AutoLRCallback(), **given)
    (said,) = told(caplog)
    assert f"ended {batches - batches // 2} steps before" in said
    caplog.clear()
    fit(tmp_path, EverySecond(), AutoLRCallback(steps=batches // 2), **given)
    assert not told(caplog)


def test_where_lightning_stops_early(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stops = EarlyStopping("val_loss", patience=1, stopping_threshold=10.0)  # after the first epoch
    fit(tmp_path, Digits(), AutoLRCallback(), stops, max_steps=-1, max_epochs=3)
    (said,) = told(caplog)
    assert 'AutoLRConfig(on_overfit="finish")' in said


def test_not_where_an_error_ends_it_nor_where_there_is_no_anneal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(RuntimeError, match="somebody's own"):
        fit(tmp_path, Digits(), AutoLRCallback(), Interrupts())
    open_end = AutoLRCallback(AutoLRConfig(anneal_fraction=0), steps=1000)
    fit(tmp_path, Digits(), open_end, max_steps=5)
    fit(tmp_path, Digits(), AutoLRCallback(), max_steps=5)
    assert not told(caplog)


@pytest.mark.parametrize(("others", "left"), [([StopAt(4, save=False)], 2), ([], 0)])
def test_where_a_trainer_stops_early(
    tmp_path: Path, others: list[TrainerCallback], left: int, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = steered(tmp_path, max_steps=6)
    for other in others:
        trainer.add_callback(other)
    trainer.train()
    assert len(told(caplog)) == bool(left)
    if left:
        assert f"ended {left} steps before AutoLR's end" in told(caplog)[0]
        assert "TrainingArguments(max_steps=...)" in told(caplog)[0]
