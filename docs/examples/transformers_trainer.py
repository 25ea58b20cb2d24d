"""A small GPT-2 on the bundled text, by transformers' Trainer: the default schedule, then AutoLR (two lines)."""

from pathlib import Path
from tempfile import mkdtemp

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import aios.data
from aios.integrations.transformers import AutoLRCallback

TEXT = (Path(aios.data.__file__).parent / "corpus" / "kjv.txt").read_bytes()


class Windows(torch.utils.data.Dataset):
    def __init__(self, first, count):
        self.first, self.count = first, count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        window = torch.tensor(list(TEXT[(self.first + i) * 32 : (self.first + i + 1) * 32]))
        return {"input_ids": window, "labels": window}


def train(steered):
    set_seed(0)
    sizes = {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=256, bos_token_id=0, eos_token_id=0, **sizes))
    args = TrainingArguments(mkdtemp(), max_steps=200, logging_steps=50, save_strategy="no", report_to="none")
    trainer = Trainer(model, args, train_dataset=Windows(0, 12000), eval_dataset=Windows(12000, 200))
    if steered:
        AutoLRCallback.attach(trainer)
    trainer.train()
    return trainer.evaluate()["eval_loss"]


print(f"default {train(False):.3f}, AutoLR {train(True):.3f}")
