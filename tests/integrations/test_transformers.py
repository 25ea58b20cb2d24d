"""`AutoLRCallback` under transformers' own Trainer."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from aios.auto_lr import AdaptiveLRConfig, AdaptiveLRScheduler, AutoLRConfig, TroubleConfig
from aios.errors import RunError, UserError
from aios.integrations.transformers import AutoLRCallback
from integrations.steered_trainers import Events, named, steered
from integrations.tiny_trainers import (
    StopAt,
    Vowels,
    Windows,
    adjust_by_hand,
    as_if_trained,
    bert,
    gpt2,
    make_trainer,
    same,
    weights,
)


def test_a_fresh_model_climbs_and_learns(tmp_path: Path) -> None:
    events: Events = []
    trainer = steered(tmp_path, events=events, max_steps=90, logging_strategy="steps", logging_steps=15)
    trainer.train()
    logged = [record for record in trainer.state.log_history if "loss" in record]
    assert trainer.state.global_step == 90
    assert [record["how"] for record in named(events, "adaptive_lr_climb")] == ["climb"]
    assert logged[-1]["loss"] < logged[0]["loss"] - 0.8  # by default it falls by 0.1
    assert all(record["learning_rate"] > 0 and "auto_lr/climbing" in record for record in logged)
    assert logged[-1]["auto_lr/found_lr"] == events[0]["lr"]
    assert all(record["auto_lr/learning_rate"] == record["learning_rate"] for record in logged)


def test_the_shorter_accumulation_at_the_end_of_an_epoch_has_a_whole_loss(tmp_path: Path) -> None:
    events: Events = []  # 3 batches an epoch: every other step has but one
    steered(tmp_path, gpt2(), events, data=Windows(12), max_steps=100, gradient_accumulation_steps=2).train()
    early = [loss for _, loss in named(events, "adaptive_lr_climb")[0]["curve"][:6]]  # at rates that train nothing
    assert min(early) > 0.9 * max(early)


def test_it_hands_on_the_mean_loss_and_the_norm_before_clipping(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path, gpt2(), max_steps=3, gradient_accumulation_steps=2, max_grad_norm=0.01, logging_steps=1,
        logging_strategy="steps",
    )  # fmt: skip
    seen: list[tuple[float, float]] = []
    callback = AutoLRCallback.attach(trainer)

    class Probe(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            auto = callback.auto
            follow = auto.after_step
            auto.after_step = lambda loss, norm: (seen.append((float(loss), float(norm))), follow(loss, norm))

    trainer.add_callback(Probe())
    trainer.train()
    logged = [record for record in trainer.state.log_history if "loss" in record]
    assert [loss for loss, _ in seen] == pytest.approx([record["loss"] for record in logged], rel=1e-5)
    assert [norm for _, norm in seen] == pytest.approx([record["grad_norm"] for record in logged], rel=1e-5)
    assert min(norm for _, norm in seen) > 0.01


class Before(TrainerCallback):
    """The state of the training as it is when the first step begins."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == 0 and not hasattr(self, "random"):
            numbers = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
            self.random = [numbers[0].tolist(), numbers[1], numbers[2]]


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_race_leaves_nothing_behind(tmp_path: Path, accumulate: int) -> None:
    """The first steps that follow are those of a trainer that never raced, at its own rate: bit for bit."""
    events: Events = []

    def run(with_race: bool) -> tuple[Any, Before]:
        model, begin = as_if_trained(bert()), Before()
        trainer = make_trainer(
            tmp_path, model, Vowels(), max_steps=400, gradient_accumulation_steps=accumulate, learning_rate=1e-3,
            lr_scheduler_type="constant", seed=3, optim="sgd",
        )  # fmt: skip
        trainer.add_callback(begin)
        if with_race:
            callback = AutoLRCallback.attach(trainer, log_fn=events.append)

            class AtAsked(TrainerCallback):
                def on_pre_optimizer_step(self, *_: Any, optimizer: Any, **__: Any) -> None:
                    for group in optimizer.param_groups:
                        group["lr"] = 1e-3

            trainer.add_callback(AtAsked())
            assert callback.auto is None
        trainer.add_callback(StopAt(3, save=False))
        trainer.train()
        return weights(model), begin

    raced, raced_begin = run(True)
    plain, plain_begin = run(False)
    assert named(events, "adaptive_lr_race")[0]["search_steps"] > 15
    assert raced_begin.random == plain_begin.random
    assert same(raced, plain)


class Recorded(Trainer):
    """Keeps what it trains on: the micro-batches between the beginning of a step and its update."""

    def training_step(self, model: Any, inputs: Any, *args: Any) -> torch.Tensor:
        if self.in_step:
            self.trained.append(inputs["input_ids"].sum().item())
        return super().training_step(model, inputs, *args)


class InStep(TrainerCallback):
    def __init__(self, trainer: Recorded) -> None:
        self.trainer = trainer
        trainer.in_step, trainer.trained = False, []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.trainer.in_step = True

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        self.trainer.in_step = False


@pytest.mark.parametrize(
    ("at", "given"),
    [
        (24, {}),  # in the climb, in the middle of an epoch
        pytest.param(64, {}, marks=pytest.mark.slow),  # an epoch ends there
        pytest.param(64, {"gradient_accumulation_steps": 2}, marks=pytest.mark.slow),
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, at: int, given: dict[str, Any]) -> None:
    def run(checkpoint: str | None) -> dict[str, torch.Tensor]:
        trainer = steered(tmp_path, max_steps=80, save_strategy="steps", save_steps=at, **given)
        trainer.train(resume_from_checkpoint=checkpoint)
        return {**weights(trainer.model), "lr": torch.tensor(trainer.optimizer.param_groups[0]["lr"])}

    unbroken = run(None)
    assert same(run(str(tmp_path / f"checkpoint-{at}")), unbroken)


def test_a_finished_run_that_is_resumed_ends_at_once(tmp_path: Path) -> None:
    steered(tmp_path, max_steps=3, save_strategy="steps", save_steps=3).train()
    resumed = steered(tmp_path, max_steps=3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.global_step <= 4


@pytest.mark.slow
def test_a_trainer_that_trains_again_races_for_the_model_it_has_trained(tmp_path: Path) -> None:
    events: Events = []
    trainer = steered(tmp_path, None, events, max_steps=330)
    trainer.train()
    ended = weights(trainer.model)
    trainer.train()
    (climb,) = named(events, "adaptive_lr_climb")
    assert climb["lr"] is not None
    begun = events.index(next(e for e in events if e["event"] == "adaptive_lr_race" and e["step"] == 0))
    assert begun > events.index(climb)
    assert (trainer.state.global_step, events[-1]["step"]) == (330, 330)
    assert not same(weights(trainer.model), ended)


@pytest.mark.slow
def test_going_on_from_a_checkpoint_of_another_schedule(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = make_trainer(tmp_path, gpt2(), max_steps=5, save_strategy="steps", save_steps=5)
    first.train()
    events: Events = []
    trainer = steered(tmp_path, events=events, max_steps=86)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert trainer.state.global_step == 86
    assert "was not trained with AutoLR" in caplog.text
    assert named(events, "adaptive_lr_climb") or named(events, "adaptive_lr_race")


def test_lora(tmp_path: Path) -> None:
    model = get_peft_model(gpt2(), LoraConfig(r=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True))
    before, events = weights(model), []
    steered(tmp_path, model, events, max_steps=80).train()
    moved = {name for name, tensor in weights(model).items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    assert named(events, "adaptive_lr_climb")[0]["lr"] is not None


def test_bf16_gradient_checkpointing_and_evaluation(tmp_path: Path) -> None:
    given = {"bf16": True, "gradient_checkpointing": True, "eval_strategy": "steps", "eval_steps": 40}
    trainer = steered(tmp_path, max_steps=120, eval_dataset=Windows(16), **given)
    trainer.train()
    assert [r["step"] for r in trainer.state.log_history if "eval_loss" in r] == [40, 80, 120]
    assert trainer.state.log_history[-2]["eval_loss"] < 4
    (callback,) = (c for c in trainer.callback_handler.callbacks if isinstance(c, AutoLRCallback))
    losses = [r["eval_loss"] for r in trainer.state.log_history if "eval_loss" in r and r["step"] > 0.6 * 120]
    assert callback.auto.evaluations.best.loss == min(losses), "the controller heeds those behind the climb"


@pytest.mark.slow
def test_compiled_with_early_stopping_and_the_best_model(tmp_path: Path) -> None:
    given = {"torch_compile": True, "torch_compile_backend": "eager", "eval_strategy": "steps", "eval_steps": 40}
    keeps = {"save_strategy": "steps", "save_steps": 40, "load_best_model_at_end": True, "save_total_limit": 1}
    trainer = steered(tmp_path, max_steps=200, eval_dataset=Windows(16), **given, **keeps)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=9.0))
    trainer.train()
    assert trainer.state.global_step == 80
    assert trainer.state.best_metric is not None


@pytest.mark.parametrize("optim", ["adamw_torch_fused", "adamw_torch"])
def test_a_step_whose_loss_is_not_finite_changes_nothing(tmp_path: Path, optim: str) -> None:
    changed: list[bool] = []

    class Spoils(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            return loss * math.nan if self.state.global_step == 4 and torch.is_grad_enabled() else loss

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, model: Any, **__: Any) -> None:
            self.before = weights(model)

        def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
            changed.append(not same(self.before, weights(model)))

    trainer = make_trainer(tmp_path, gpt2(), max_steps=7, kind=Spoils, optim=optim)
    trainer.add_callback(Watch())
    AutoLRCallback.attach(trainer)
    trainer.train()
    assert changed == [True] * 4 + [False] + [True] * 2


def test_a_run_that_cannot_be_saved_ends_with_a_checkpoint(tmp_path: Path) -> None:
    class Spoiled(Trainer):
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            return loss * math.nan if self.state.global_step >= 10 else loss

    trainer = make_trainer(tmp_path, gpt2(), max_steps=79, kind=Spoiled)
    AutoLRCallback.attach(trainer, AutoLRConfig(trouble=TroubleConfig(non_finite_patience=4, max_rewinds=1)))
    with pytest.raises(RunError, match="learning rate"):
        trainer.train()
    assert trainer.state.global_step < 30
    saved = sorted(tmp_path.glob("checkpoint-*/model.safetensors"))
    assert len(saved) == 1
    assert all(torch.isfinite(tensor).all() for tensor in weights(trainer.model).values())


def test_loss_scaling(tmp_path: Path) -> None:
    """Accelerate keeps its scaler from the CPU, where torch has one: it is put in by hand."""
    trainer = make_trainer(tmp_path, gpt2(), max_steps=80)
    accelerator = trainer.accelerator
    accelerator.scaler, accelerator.native_amp = torch.amp.GradScaler("cpu", init_scale=2.0**8), True
    accelerator.unscale_gradients = lambda optimizer=None: [
        accelerator.scaler.unscale_(wrapped.optimizer) for wrapped in accelerator._optimizers
    ]
    events: Events = []
    callback = AutoLRCallback.attach(trainer, log_fn=events.append)
    trainer.train()
    assert isinstance(callback, AutoLRCallback)
    assert callback.auto.engine.scales_loss
    assert accelerator.scaler.get_scale() == 2.0**8
    assert named(events, "adaptive_lr_climb")[0]["lr"] is not None


def test_the_plain_scheduler(tmp_path: Path) -> None:
    def run(checkpoint: str | None) -> AdaptiveLRScheduler:
        model = gpt2()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        quick = {"window_size": 4, "cooldown_steps": 0, "increase_threshold": 1e-3, "patience": 4}
        scheduler = AdaptiveLRScheduler(optimizer, AdaptiveLRConfig(initial_lr=1e-3, **quick))
        given = {"max_steps": 30, "save_strategy": "steps", "save_steps": 22}
        trainer = make_trainer(tmp_path, model, optimizers=(optimizer, scheduler), **given)
        AutoLRCallback.attach(trainer)
        trainer.train(resume_from_checkpoint=checkpoint)
        return scheduler

    unbroken = run(None)
    assert unbroken.total_steps == 30
    assert unbroken.adjustments_made > 0
    assert run(str(tmp_path / "checkpoint-22")).state_dict() == unbroken.state_dict()


def test_a_schedule_of_the_users_own_is_overruled(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trainer = steered(tmp_path, lr_scheduler_type="cosine", learning_rate=0.5)
    trainer.add_callback(StopAt(2, save=False))
    trainer.train()
    said = [record.message for record in caplog.records if "overruled" in record.message]
    assert len(said) == 1
    assert "lr_scheduler_type=cosine" in said[0]
    assert "learning_rate=0.5" in said[0]
    assert trainer.optimizer.param_groups[0]["lr"] < 0.1


class AttachesLate(TrainerCallback):
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    def on_step_end(self, *_: Any, **__: Any) -> None:
        AutoLRCallback.attach(self.trainer)


def test_bad_calls(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs its trainer"):
        make_trainer(tmp_path, gpt2()).add_callback(AutoLRCallback())
    trainer = steered(tmp_path)
    with pytest.raises(UserError, match="attached to this trainer already"):
        AutoLRCallback.attach(trainer)
    late = make_trainer(tmp_path, gpt2())
    late.add_callback(AttachesLate(late))
    with pytest.raises(UserError, match="training has begun"):
        late.train()
    model = gpt2()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rules = AdaptiveLRScheduler(optimizer, AdaptiveLRConfig())
    with pytest.raises(UserError, match="give config and log_fn to that one"):
        AutoLRCallback.attach(make_trainer(tmp_path, model, optimizers=(optimizer, rules)), AutoLRConfig())
    frozen = gpt2().requires_grad_(False)
    with pytest.raises(ValueError, match="trains no parameter of the model"):
        steered(tmp_path, frozen).train()


def test_what_a_loss_gathers_stays_in_the_list_that_others_know(tmp_path: Path) -> None:
    class Gathering(Trainer):
        parts: list[float]

        def compute_loss(self, *given: Any, **more: Any) -> Any:
            loss = super().compute_loss(*given, **more)
            self.parts.append(float(loss.detach()))
            return loss

    trainer = make_trainer(tmp_path, gpt2(), kind=Gathering, max_steps=5)
    known = trainer.parts = []
    AutoLRCallback.attach(trainer)
    trainer.train()
    assert trainer.parts is known
    assert len(known) == 5


def test_a_checkpoint_holds_the_weights_that_were_evaluated(tmp_path: Path) -> None:
    events: Events = []
    trainer = steered(
        tmp_path, gpt2(), events, max_steps=200, eval_strategy="steps", save_strategy="steps", eval_steps=9,
        save_steps=9, optim="sgd", learning_rate=1e-2, eval_dataset=Windows(16),
    )  # fmt: skip
    trainer.train()
    told = {record["step"]: record["eval_loss"] for record in trainer.state.log_history if "eval_loss" in record}
    (climb,) = named(events, "adaptive_lr_climb")
    for step in [step for step in told if step <= climb["step"] + 9]:
        there = steered(tmp_path / "other", type(trainer.model).from_pretrained(tmp_path / f"checkpoint-{step}"))
        assert there.evaluate(Windows(16))["eval_loss"] == pytest.approx(told[step], rel=1e-4)


def test_each_training_counts_its_own_adjustments(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gpt2(), max_steps=3, logging_strategy="steps", logging_steps=1)
    events: Events = []
    callback = AutoLRCallback.attach(trainer, log_fn=events.append)
    for _ in range(2):
        trainer.train()
        assert {told["auto_lr/adjustments"] for told in trainer.state.log_history if "loss" in told} == {0.0}
        adjust_by_hand(callback.auto)
    assert len(named(events, "adaptive_lr_adjustment")) == 2
