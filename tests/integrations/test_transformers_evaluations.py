"""Which of a Trainer's evaluations are heeded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from transformers import Trainer

from aios.auto_lr import AutoLRConfig
from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import Windows, gpt2, make_trainer

TWO_SETS = {"held": Windows(8), "other": Windows(4)}


def steered(folder: Path, config: AutoLRConfig | None = None, **given: Any) -> Any:
    """The callback, behind a run of 20 steps with two evaluations; and the trainer's log."""
    evaluates = {"eval_strategy": "steps", "eval_steps": 10, "max_steps": 20}
    trainer = make_trainer(folder, gpt2(), **evaluates, **given)
    callback = AutoLRCallback.attach(trainer, config or AutoLRConfig(profile="rules"))
    trainer.train()
    return callback, trainer.state.log_history


@pytest.mark.parametrize("name", ["eval_held_loss", "held_loss"])
def test_of_several_sets_the_loss_that_the_best_model_goes_by_is_heeded(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    callback, log = steered(tmp_path, eval_dataset=TWO_SETS, metric_for_best_model=name)
    losses = [record["eval_held_loss"] for record in log if "eval_held_loss" in record]
    assert callback.auto.evaluations.best.loss == pytest.approx(min(losses))
    assert not [message for message in caplog.messages if "heed" in message]


def test_where_no_set_is_named_one_sentence_says_what_to_set(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    callback, _ = steered(tmp_path, eval_dataset=TWO_SETS)
    assert callback.auto.evaluations.best is None
    (told,) = [message for message in caplog.messages if "heed" in message]
    assert told == (
        "AutoLR heeds no evaluation, for none has eval_loss: name another loss by "
        "TrainingArguments(metric_for_best_model=...), such as eval_held_loss"
    )


def test_evaluations_that_are_to_be_ignored_need_no_loss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    steered(tmp_path, AutoLRConfig(profile="rules", on_overfit="ignore"), eval_dataset=TWO_SETS)
    assert not [message for message in caplog.messages if "heed" in message]


@pytest.mark.parametrize(
    ("sets", "score", "loss"),
    [(Windows(8), "eval_accuracy", "eval_loss"), (TWO_SETS, "eval_other_accuracy", "eval_other_loss")],
)
def test_beside_a_score_the_loss_of_its_set_is_heeded(
    tmp_path: Path, sets: Any, score: str, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    scored = partial(Trainer, compute_metrics=lambda _: {"accuracy": 0.5})
    callback, log = steered(tmp_path, kind=scored, eval_dataset=sets, metric_for_best_model=score)
    losses = [record[loss] for record in log if loss in record]
    assert callback.auto.evaluations.best.loss == pytest.approx(min(losses))
    assert not [message for message in caplog.messages if "heed" in message]


def test_a_test_on_the_way_is_no_evaluation(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Tests(Trainer):
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            if self.state.global_step == 5:
                self.evaluate(Windows(8), metric_key_prefix="test")
            return super().training_step(*args, **kwargs)

    callback, log = steered(tmp_path, kind=Tests, eval_dataset=Windows(8))
    assert sum("test_loss" in record for record in log) == 1
    assert callback.auto.evaluations.best.step in (10, 20)
    assert not [message for message in caplog.messages if "heed" in message]
