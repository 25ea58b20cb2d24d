"""`AutoLRCallback` under TRL's SFTTrainer, which counts and logs by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

import aios.data
from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import LENGTH, TEXT, StopAt, as_if_trained, gpt2

TOKENIZER = Path(aios.data.__file__).parent / "tokenizer"


def sft(folder: Path, steps: int) -> SFTTrainer:
    pieces = [[byte % 64 for byte in TEXT[i : i + LENGTH]] for i in range(0, 128 * LENGTH, LENGTH)]
    args = SFTConfig(
        str(folder), max_steps=steps, per_device_train_batch_size=4, logging_steps=1, save_strategy="no", use_cpu=True,
        bf16=False, report_to="none", disable_tqdm=True, gradient_checkpointing=False,
    )  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(TOKENIZER)
    return SFTTrainer(
        as_if_trained(gpt2()), args, train_dataset=Dataset.from_dict({"input_ids": pieces}), processing_class=tokenizer
    )


def test_a_race_leaves_the_trainers_counts_alone(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []

    def run(attach: bool) -> SFTTrainer:
        trainer = sft(tmp_path, 400)
        if attach:
            AutoLRCallback.attach(trainer, log_fn=events.append)
        trainer.add_callback(StopAt(2, save=False))
        trainer.train()
        return trainer

    steered, plain = run(True), run(False)
    race = [record for record in events if record["event"] == "adaptive_lr_race"]
    assert race[0]["lr"] is not None
    first, expected = steered.state.log_history[0], plain.state.log_history[0]
    for name in ("loss", "grad_norm", "num_tokens", "entropy", "mean_token_accuracy"):
        assert first[name] == expected[name]
    assert first["learning_rate"] != expected["learning_rate"]
    assert first["auto_lr/search_steps"] == race[0]["search_steps"]
