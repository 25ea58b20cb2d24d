"""A training that is left by an error, and one that goes on without us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import StopAt, gpt2, make_trainer


def hooks_of(trainer: Trainer) -> int:
    optimizer: Any = trainer.optimizer
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


class Watches(TrainerCallback):
    """Counts the optimizer's hooks in each step, and interrupts the first training."""

    def __init__(self) -> None:
        self.counts = list[int]()
        self.trainer: Any = None

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.counts.append(hooks_of(self.trainer))
        if len(self.counts) in (10, 20):
            raise KeyboardInterrupt


def test_a_training_after_an_interrupted_one_has_the_optimizer_to_itself(tmp_path: Path) -> None:
    watches = Watches()
    trainer = watches.trainer = make_trainer(tmp_path, gpt2(), max_steps=100)
    AutoLRCallback.attach(trainer)
    trainer.add_callback(watches)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
    trainer.train()
    assert watches.counts[0] > 0
    assert max(watches.counts) == watches.counts[0]
    assert hooks_of(trainer) == 0


def test_a_checkpoint_of_the_model_alone_is_said_to_be_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for checkpoint in (None, str(tmp_path / "checkpoint-3")):
        saves = {"save_strategy": "steps", "save_steps": 3, "save_only_model": True}
        trainer = make_trainer(tmp_path, gpt2(), max_steps=5, **saves)
        AutoLRCallback.attach(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
    assert caplog.text.count("the checkpoint has no scheduler.pt") == 1
    assert "was not trained with AutoLR" not in caplog.text


class Rates(TrainerCallback):
    def __init__(self) -> None:
        self.seen = list[float]()

    def on_pre_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


@pytest.mark.parametrize("trained", [False, True])
def test_a_trainer_whose_callback_is_removed_has_its_own_schedule_again(tmp_path: Path, trained: bool) -> None:
    rates = {}
    for ours in (True, False):
        trainer = make_trainer(tmp_path, gpt2(), max_steps=5, logging_strategy="steps", logging_steps=1)
        if ours:
            callback = AutoLRCallback.attach(trainer)
            if trained:
                trainer.train()
            trainer.remove_callback(callback)
        told = Rates()
        trainer.add_callback(told)
        trainer.train()
        rates[ours] = told.seen
        assert "auto_lr/climbing" not in trainer.state.log_history[-2]
    assert rates[True] == rates[False]
    assert rates[True][0] > rates[True][-1]


def test_a_checkpoint_goes_on_without_us_and_with_us_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saves = {"max_steps": 20, "save_strategy": "steps", "save_steps": 5, "learning_rate": 1e-3}
    whole = make_trainer(tmp_path / "plain", gpt2(), **saves)
    plain, resumed = Rates(), Rates()
    whole.add_callback(plain)
    whole.train()
    for stop, steered in ((5, True), (10, False), (15, True)):
        trainer = make_trainer(tmp_path, gpt2(), **saves)
        trainer.add_callback(StopAt(stop))
        if steered:
            AutoLRCallback.attach(trainer)
        else:
            trainer.add_callback(resumed)
        trainer.train(resume_from_checkpoint=None if stop == 5 else str(tmp_path / f"checkpoint-{stop - 5}"))
    # The first step has the rate that the optimizer came with, as with all of Trainer's schedulers.
    assert resumed.seen[1:] == plain.seen[6:10]
    assert caplog.text.count("was not trained with AutoLR") == 1
    assert trainer.state.global_step == 15
