"""Small models from config under transformers' own Trainer, on the bundled text; fast, and dropout is on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import aios.data
from aios.auto_lr import AutoLR
from aios.auto_lr.adaptive_lr import LRDecision

TEXT = (Path(aios.data.__file__).parent / "corpus" / "kjv.txt").read_bytes()
LENGTH = 16


class Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Windows of the bundled text, byte by byte."""

    def __init__(self, count: int = 256) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        ids = torch.tensor(list(TEXT[i * LENGTH : (i + 1) * LENGTH])) % 64
        return {"input_ids": ids, "labels": ids}


class Vowels(Windows):
    """The same, labelled by whether the window holds few vowels."""

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        piece = TEXT[i * LENGTH : (i + 1) * LENGTH]
        ids = torch.tensor(list(piece)) % 64
        return {"input_ids": ids, "labels": torch.tensor(int(sum(c in b"aeiou" for c in piece) < 5))}


def gpt2(seed: int = 0) -> PreTrainedModel:
    set_seed(seed)
    sizes = {"n_positions": LENGTH, "n_embd": 16, "n_layer": 1, "n_head": 2}
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, bos_token_id=0, eos_token_id=0, **sizes))


def bert(seed: int = 0) -> PreTrainedModel:
    set_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=64, max_position_embeddings=LENGTH, **sizes))


def as_if_trained(model: PreTrainedModel) -> PreTrainedModel:
    """Give each matrix one direction that stands out, which is how training shows."""
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                rows, columns = (nn.functional.normalize(torch.randn(n), dim=0) for n in weight.shape)
                weight += 3 * weight.std() * sum(n**0.5 for n in weight.shape) * torch.outer(rows, columns)
    return model


def make_trainer(
    folder: Path,
    model: PreTrainedModel,
    data: Any = None,
    kind: Callable[..., Trainer] = Trainer,
    eval_dataset: Any = None,
    optimizers: Any = (None, None),
    **given: Any,
) -> Trainer:
    defaults = {"max_steps": 90, "per_device_train_batch_size": 4, "save_strategy": "no", "logging_strategy": "no"}
    quiet = {"use_cpu": True, "report_to": "none", "disable_tqdm": True}
    args = TrainingArguments(str(folder), **{**defaults, **quiet, **given})
    return kind(model, args, train_dataset=data or Windows(), eval_dataset=eval_dataset, optimizers=optimizers)


class StopAt(TrainerCallback):
    """Ends the training, saving, after `step`: as if it were killed there."""

    def __init__(self, step: int, save: bool = True) -> None:
        self.step, self.save = step, save

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            control.should_save, control.should_training_stop = self.save, True


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def adjust_by_hand(auto: AutoLR | None) -> None:
    """Have the controller lower its rate, and say so."""
    assert auto is not None
    assert auto.control is not None
    assert auto.control.recovery is not None
    auto.control.recovery.scheduler.intervene(LRDecision.DECREASE, "decrease", "by hand")
