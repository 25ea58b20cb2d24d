"""A tiny GPT-2 and a tiny BERT under transformers' own Trainer, by its own options, steered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback, Trainer

from aios.errors import UserError
from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import Vowels, Windows, bert, gpt2, make_trainer

OPTIONS: dict[str, dict[str, Any]] = {
    "bf16": {"bf16": True},
    "accumulation": {"gradient_accumulation_steps": 2},
    "gradient checkpointing": {"gradient_checkpointing": True},
    "compiled": {"torch_compile": True, "torch_compile_backend": "eager"},
    "evaluation": {"eval_strategy": "steps", "eval_steps": 20},
}
UNCOMPILED = {name: value for key, option in OPTIONS.items() if key != "compiled" for name, value in option.items()}
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("model", "options"),
    [pytest.param(gpt2, given, id=f"gpt2, {name}", marks=SLOW) for name, given in OPTIONS.items()]
    + [pytest.param(bert, given, id=f"bert, {name}", marks=SLOW) for name, given in OPTIONS.items()]
    + [pytest.param(gpt2, {**UNCOMPILED, **OPTIONS["compiled"]}, id="gpt2, all together", marks=SLOW)]
    + [pytest.param(bert, UNCOMPILED, id="bert, all but compiled")],
)
def test_a_search_and_what_follows(tmp_path: Path, model: Any, options: dict[str, Any]) -> None:
    events: list[dict[str, Any]] = []
    kind = Vowels if model is bert else Windows
    logs = {"logging_strategy": "steps", "logging_steps": 20}
    trainer = make_trainer(tmp_path, model(), kind(), eval_dataset=kind(16), max_steps=80, **logs, **options)
    AutoLRCallback.attach(trainer, log_fn=events.append)
    trainer.train()
    losses = [record["loss"] for record in trainer.state.log_history if "loss" in record]
    assert trainer.state.global_step == 80
    assert next(record["how"] for record in events if "how" in record) == "climb"
    assert len(losses) == 4
    assert losses[-1] < losses[0] * (1.1 if model is bert else 0.8)  # 80 steps hardly better the ln 2 of two labels


@pytest.mark.parametrize("model", [bert, pytest.param(gpt2, marks=SLOW)])
def test_early_stopping_ends_the_run_where_it_would(tmp_path: Path, model: Any) -> None:
    kind = Vowels if model is bert else Windows
    given = {"eval_strategy": "steps", "eval_steps": 10, "metric_for_best_model": "eval_loss"}
    trainer = make_trainer(tmp_path, model(), kind(), eval_dataset=kind(16), max_steps=80, **given)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2, early_stopping_threshold=9.0))
    callback = AutoLRCallback.attach(trainer)
    trainer.train()
    assert isinstance(callback, AutoLRCallback)
    assert trainer.state.global_step == callback.auto.step_count == 30


class ClipsBySteps(Trainer):
    """Asks for no norm any more from step 3 on."""

    def _clip_grad_norm(self, model: Any) -> Any:
        return super()._clip_grad_norm(model) if self.state.global_step < 3 else 1.0


def test_a_step_without_its_own_norm_is_refused(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, gpt2(), max_steps=10, kind=ClipsBySteps)
    AutoLRCallback.attach(trainer)
    with pytest.raises(UserError, match="leave clipping to Trainer"):
        trainer.train()
    assert trainer.state.global_step == 3


def test_updates_layer_by_layer_are_refused_by_name(tmp_path: Path) -> None:
    given = {"optim": "galore_adamw_layerwise", "optim_target_modules": "all-linear"}
    with pytest.raises(UserError, match=r"optim=galore_adamw_layerwise .* take galore_adamw$"):
        AutoLRCallback.attach(make_trainer(tmp_path, gpt2(), **given))


def test_a_search_over_learning_rates_is_told_that_they_have_no_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = make_trainer(tmp_path, gpt2(), learning_rate=0.5, max_steps=2)
    AutoLRCallback.attach(trainer)
    for rate in (0.5, 1e-3, 1e-3, 1e-4):
        trainer.args.learning_rate = rate  # as `Trainer.hyperparameter_search` does
        trainer.train()
    said = [message.rpartition(": ")[2] for message in caplog.messages if "overruled" in message]
    assert said == [f"learning_rate={rate} is overruled" for rate in (0.5, 0.001, 0.0001)]
