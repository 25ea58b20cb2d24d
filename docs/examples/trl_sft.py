"""Verses of the bundled text by TRL's SFTTrainer: the default schedule, then AutoLR (two lines)."""

from pathlib import Path
from tempfile import mkdtemp

from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, set_seed
from trl import SFTConfig, SFTTrainer

import aios.data
from aios.integrations.transformers import AutoLRCallback

DATA = Path(aios.data.__file__).parent
LINES = [line for line in (DATA / "corpus" / "kjv.txt").read_text(encoding="utf-8").splitlines() if len(line) > 60]


def train(steered):
    set_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(DATA / "tokenizer")
    sizes = {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    args = SFTConfig(
        mkdtemp(), max_steps=120, per_device_train_batch_size=8, max_length=32, logging_steps=50, save_strategy="no",
        report_to="none", bf16=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        model, args, train_dataset=Dataset.from_dict({"text": LINES[:2000]}), processing_class=tokenizer,
        eval_dataset=Dataset.from_dict({"text": LINES[2000:2100]}),
    )  # fmt: skip
    if steered:
        AutoLRCallback.attach(trainer)
    trainer.train()
    return trainer.evaluate()["eval_loss"]


print(f"default {train(False):.3f}, AutoLR {train(True):.3f}")
