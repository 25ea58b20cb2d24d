"""A small GPT-2 on bytes: from scratch on the bundled text, or by LoRA after a training on Python's sources."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel, set_seed

from lr_bench.problems.text import BIBLE, CODE, HELD_OUT, text_bytes

SCRATCH, LORA = "scratch", "lora"
TASKS = (SCRATCH, LORA)
LENGTH = 48
"""Tokens of a window."""
ROWS = 8
"""Windows of a batch."""
EVALUATED = 128
"""Held-out windows."""
STEPS = {SCRATCH: 300, LORA: 400}
"""Optimizer steps of a run."""
_BEFORE_STEPS, _BEFORE_PEAK = 1000, 3e-3


class Windows(torch.utils.data.Dataset[dict[str, Tensor]]):
    """Windows of a text, evenly spread: `input_ids` and `labels`, int64 [LENGTH]."""

    def __init__(self, data: Tensor, count: int) -> None:
        self._data, self._starts = data, torch.linspace(0, len(data) - LENGTH, count).long().tolist()

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        window = self._data[self._starts[number] : self._starts[number] + LENGTH].long()
        return {"input_ids": window, "labels": window}


@dataclass(frozen=True)
class Data:
    """What is trained on, and what is held out."""

    train: Windows
    held_out: Windows


@functools.cache
def data_of(text: str, batches: int) -> Data:
    """`batches` batches of a text, and windows of its tail."""
    whole = text_bytes(text)
    border = int(len(whole) * (1 - HELD_OUT))
    return Data(Windows(whole[:border], batches * ROWS), Windows(whole[border:], EVALUATED))


def model_for(task: str, seed: int) -> nn.Module:
    """The model of a task as it is before training."""
    set_seed(seed)
    model = _fresh()
    if task == SCRATCH:
        return model
    model.load_state_dict(_trained_before())
    adapters = LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn", "c_fc", "c_proj"], fan_in_fan_out=True)
    adapted: nn.Module = get_peft_model(model, adapters)
    return adapted


def _fresh() -> GPT2LMHeadModel:
    sizes = {"n_positions": LENGTH, "n_embd": 64, "n_layer": 2, "n_head": 4}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes, **dropout))


def _trained_before() -> dict[str, Tensor]:
    """Weights of the model trained on Python's sources, made once."""
    path = Path(__file__).resolve().parents[2] / "build" / "integration_bench" / "gpt2-on-code.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(_train_before(), path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)
    found: dict[str, Tensor] = torch.load(path, weights_only=True)
    return found


def _train_before() -> dict[str, Tensor]:
    set_seed(1000)
    model, windows = _fresh(), data_of(CODE, _BEFORE_STEPS).train
    optimizer = torch.optim.AdamW(model.parameters(), lr=_BEFORE_PEAK)
    order = torch.randperm(len(windows)).view(-1, ROWS)
    for step, rows in enumerate(order.tolist()):
        optimizer.param_groups[0]["lr"] = _BEFORE_PEAK * min(1.0, (step + 1) / 100) * (1 - step / len(order))
        batch = torch.stack([windows[row]["input_ids"] for row in rows])
        model(input_ids=batch, labels=batch).loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def task_data(steps: int) -> Data:
    """The data of both tasks: enough of the bundled text for one epoch of `steps` steps, and for a race ahead."""
    return data_of(BIBLE, steps)


@torch.no_grad()
def held_out_loss(model: nn.Module, data: Data) -> float:
    """Mean loss over the held-out windows, nats per byte."""
    model.eval()
    batch = torch.stack([window["input_ids"] for window in data.held_out])  # type: ignore[attr-defined]
    return float(model(input_ids=batch, labels=batch).loss)
