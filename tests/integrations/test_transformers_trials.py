"""A race leaves no trace of what a `compute_loss` does beside the loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

from integrations.steered_trainers import Events, named, steered
from integrations.tiny_trainers import StopAt, as_if_trained, gpt2


class Busy(Trainer):
    """Logs, counts and remembers while it computes a loss."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.counted = torch.zeros(())

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        self.log({"rows": float(len(inputs["input_ids"]))})
        self.counted = self.counted + 1
        if not hasattr(self, "first_seen_at"):
            self.first_seen_at = float(self.counted)
        self.newest = inputs["input_ids"]
        return super().compute_loss(model, inputs, *args, **kwargs)


class Told(TrainerCallback):
    def __init__(self) -> None:
        self.rows = 0

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.rows += "rows" in logs


def test_a_race_leaves_no_trace_in_logs_and_attributes(tmp_path: Path) -> None:
    events: Events = []
    told = Told()
    trainer = steered(tmp_path, as_if_trained(gpt2()), events, kind=Busy, max_steps=330)
    trainer.add_callback(told)
    trainer.add_callback(StopAt(2, save=False))
    trainer.train()
    assert named(events, "adaptive_lr_race")[0]["lr"] is not None
    assert told.rows == 2
    assert sum("rows" in record for record in trainer.state.log_history) == 2
    assert (float(trainer.counted), trainer.first_seen_at) == (2, 1)
    assert hasattr(trainer, "newest")
