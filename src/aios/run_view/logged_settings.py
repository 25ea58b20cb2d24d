"""What a run's settings, as its log or checkpoint names them, say of its evaluations and of where it writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OUTPUTS = ("log_file", "stop_file", "tensorboard")
"""Where a run writes, or is asked to stop, besides its brain's folder."""
IN_EVAL_ID = ("eval_file", "eval_batches", "dataset_file", "encoding", "model", "max_seq_len", "batch_size")
"""Those of the settings below that only name what `eval_id` is a digest of: the tokens evaluated, and their batches."""
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
    """Whether evaluations of two sittings can be compared, by what begins each in its log, or by a checkpoint dict: the
    settings `config`, and `eval_id`, which older ones lack.

    Where one side says nothing at all, or not what every version says, nothing speaks against it.
    """
    old, new = before.get("config") or {}, now.get("config") or {}
    if not old or not new:
        return True
    if same_text(before, now) is False:
        return False
    told = IN_EVAL_ID if same_text(before, now) else ()
    alike = all(old[name] == new[name] for name in ALWAYS_SAID if name in old and name in new and name not in told)
    later = ((name, usual) for name, usual in SAID_LATER.items() if name not in told)
    return alike and all(old.get(name, usual) == new.get(name, usual) for name, usual in later)


def same_text(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool | None:
    """Whether two sittings evaluate the same tokens in the same batches; None where one of them does not say."""
    old, new = before.get("eval_id"), now.get("eval_id")
    return None if old is None or new is None else bool(old == new)
