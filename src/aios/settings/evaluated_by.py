"""What an evaluation loss depends on: two are comparable where none of it has changed between them."""

from __future__ import annotations

EVALUATED_BY = (
    "eval_file",
    "eval_batches",
    "dataset_file",
    "encoding",
    "model",
    "max_seq_len",
    "batch_size",
    "model_dtype",
    "amp",
    "eval_segments",
    "halting",
    "ema",
)
"""Settings that it depends on, besides the weights."""
