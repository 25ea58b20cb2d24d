"""transformers' `Trainer` and TRL's `SFTTrainer`, as their users call them."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import datasets
from torch import nn
from transformers import PreTrainedTokenizerFast, Trainer, TrainingArguments
from trl import SFTConfig, SFTTrainer

from aios.data.tokenizer import bundled_tokenizer_dir
from aios.integrations.transformers import AutoLRCallback
from integration_bench.methods import OURS, trainer_options
from integration_bench.problem import EVALUATED, LENGTH, ROWS, Data, Windows


def by_transformers(method: str, lr: float, model: nn.Module, data: Data, steps: int) -> None:
    """Train by a `Trainer`."""
    with TemporaryDirectory() as folder:
        args = TrainingArguments(folder, **_options(method, lr, steps))
        _train(Trainer(model, args, train_dataset=data.train, eval_dataset=data.held_out), method)


def by_trl(method: str, lr: float, model: nn.Module, data: Data, steps: int) -> None:
    """Train by an `SFTTrainer`, which is given tokens."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(bundled_tokenizer_dir())  # SFTTrainer wants one; it has no use
    with TemporaryDirectory() as folder:
        args = SFTConfig(folder, max_length=LENGTH, bf16=False, **_options(method, lr, steps))
        trainer = SFTTrainer(
            model, args, train_dataset=_table(data.train), eval_dataset=_table(data.held_out),
            processing_class=tokenizer,
        )  # fmt: skip
        _train(trainer, method)


def _options(method: str, lr: float, steps: int) -> dict[str, Any]:
    quiet = {"save_strategy": "no", "logging_strategy": "no", "report_to": "none", "disable_tqdm": True}
    rows = {"per_device_train_batch_size": ROWS, "per_device_eval_batch_size": EVALUATED}
    shared = {"max_steps": steps, "use_cpu": True, **rows, **quiet}
    return shared | trainer_options(method, lr, steps)


def _train(trainer: Trainer, method: str) -> None:
    if method == OURS:
        AutoLRCallback.attach(trainer)
    trainer.train()


def _table(windows: Windows) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"input_ids": [windows[i]["input_ids"].tolist() for i in range(len(windows))]})
