"""Loaders and streams under Trainer: which may be looked at ahead, and epochs without a length."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterableDataset, Subset
from transformers import Trainer, TrainerCallback

from aios.integrations.transformers import AutoLRCallback
from integrations.steered_trainers import Events, named, steered
from integrations.tiny_trainers import (
    StopAt,
    Windows,
    as_if_trained,
    gpt2,
    make_trainer,
)


class Once(IterableDataset[dict[str, torch.Tensor]]):
    """Windows that can be drawn but once."""

    def __init__(self) -> None:
        self.drawn = 0

    def __iter__(self) -> Once:
        return self

    def __next__(self) -> dict[str, torch.Tensor]:
        self.drawn += 1
        return Windows()[self.drawn % 256]


def test_data_that_can_be_drawn_once_is_not_looked_at_ahead(tmp_path: Path) -> None:
    events: Events = []
    data = Once()
    trainer = steered(tmp_path, as_if_trained(gpt2()), events, data=data, max_steps=400)
    trainer.add_callback(StopAt(2, save=False))
    trainer.train()
    assert not named(events, "adaptive_lr_race")
    assert data.drawn <= 4 * 3 + 4


class Tasks:
    """Several DataLoaders in turn."""

    def __init__(self, *loaders: Any) -> None:
        self.loaders = loaders

    def __len__(self) -> int:
        return sum(map(len, self.loaders))

    def __iter__(self) -> Any:
        for loader in self.loaders:
            yield from loader


@pytest.mark.parametrize("kind", [list, Tasks])
def test_a_loader_that_is_no_dataloader_is_not_looked_at_ahead(tmp_path: Path, kind: Any) -> None:
    class Given(Trainer):
        def get_train_dataloader(self) -> Any:
            return kind(super().get_train_dataloader())

    events: Events = []
    trainer = make_trainer(tmp_path, as_if_trained(gpt2()), kind=Given, max_steps=400)
    AutoLRCallback.attach(trainer, log_fn=events.append)
    trainer.add_callback(StopAt(70, save=False))
    trainer.train()
    assert trainer.state.global_step == 70
    assert not named(events, "adaptive_lr_race")


def test_epochs_stay_what_they_are(tmp_path: Path) -> None:
    trainer = steered(tmp_path, as_if_trained(gpt2()), max_steps=-1, num_train_epochs=2, data=Windows(22))
    trainer.train()
    assert (trainer.state.global_step, trainer.state.epoch) == (12, 2)


def test_a_loader_of_one_batch(tmp_path: Path) -> None:
    events: Events = []
    trainer = steered(tmp_path, as_if_trained(gpt2()), events, data=Subset(Windows(), range(3)), max_steps=330)
    trainer.add_callback(StopAt(2, save=False))
    trainer.train()
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None


def test_fewer_steps_than_a_search_needs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steered(tmp_path, max_steps=3).train()
    said = [
        record for record in caplog.records if record.levelno >= logging.WARNING and "too few steps" in record.message
    ]
    assert len(said) == 1


class Unsized(IterableDataset[Any]):
    """As many windows in each pass, but nobody knows how many."""

    def __init__(self, count: int) -> None:
        self._windows = Windows(count)

    def __iter__(self) -> Any:
        return (self._windows[i] for i in range(len(self._windows)))


class Rates(TrainerCallback):
    """The rate of each update."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_optimizer_step(self, *_: Any, optimizer: Any = None, **__: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


def test_data_of_no_length_whose_passes_end_before_an_update_climb_at_the_rates_they_are_told_of(
    tmp_path: Path,
) -> None:
    events: Events = []
    trainer = steered(tmp_path, gpt2(), events, data=Unsized(43), max_steps=100, gradient_accumulation_steps=4)
    rates = Rates()
    trainer.add_callback(rates)
    trainer.train()
    (climb,) = named(events, "adaptive_lr_climb")
    assert len(rates.seen) == 100
    assert max(rates.seen[: climb["step"]]) == pytest.approx(climb["edge"])


class Stream(IterableDataset[Any]):
    """Windows that can be drawn but once, from a generator that it was given."""

    def __init__(self, count: int) -> None:
        self._once = (Windows(count)[i] for i in range(count))

    def __iter__(self) -> Any:
        return self._once


def test_a_stream_that_is_handed_out_again_and_again_is_left_to_the_training(tmp_path: Path) -> None:
    met: list[Any] = []

    class Meeting(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            met.append(inputs["input_ids"].clone())
            return super().training_step(model, inputs, *rest)

    trainer = make_trainer(tmp_path, gpt2(), Stream(40), kind=Meeting, max_steps=5)
    AutoLRCallback.attach(trainer)
    trainer.train()
    first = torch.stack([Windows(40)[i]["input_ids"] for i in range(len(met[0]))])
    assert torch.equal(met[0], first)
