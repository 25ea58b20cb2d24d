"""What a run's settings, as its log or checkpoint names them, say of its evaluations and of where it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OUTPUTS = ("log_file", "stop_file", "tensorboard")
"""Where a run writes, or is asked to stop, besides its brain's folder."""
ALWAYS_SAID = (
    "eval_file",
    "eval_batches",
    "dataset_file",
    "model",
    "max_seq_len",
    "batch_size",
    "model_dtype",
    "amp",
)
"""What an evaluation loss depends on besides the weights: two can be compared where none of it has changed."""
SAID_LATER: Mapping[str, Any] = {"encoding": "utf-8", "eval_segments": None, "halting": None, "ema": 0.0}
"""Those of them that older logs and checkpoints do not name: they count as at the defaults of `TrainingConfig`."""


def same_evaluation(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether evaluations under two settings of a run, as its log or checkpoint has them, can be compared.

    Where one side says nothing at all, or not what every version says, nothing speaks against it.
    """
    if not before or not now:
        return True
    alike = all(before[name] == now[name] for name in ALWAYS_SAID if name in before and name in now)
    return alike and all(before.get(name, old) == now.get(name, old) for name, old in SAID_LATER.items())
