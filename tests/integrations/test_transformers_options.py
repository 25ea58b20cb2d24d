"""A tiny GPT-2 and a tiny BERT under transformers' own Trainer, by its own options, steered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import EarlyStoppingCallback

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
