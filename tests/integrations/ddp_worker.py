"""One of two processes under `accelerate launch`: a steered Trainer, what it decided and the weights it ended with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import as_if_trained, gpt2, make_trainer


def main(folder: Path, trained: bool, steps: int) -> None:
    events: list[dict[str, Any]] = []
    trainer = make_trainer(folder, as_if_trained(gpt2()) if trained else gpt2(), max_steps=steps)
    AutoLRCallback.attach(trainer, log_fn=events.append)
    trainer.train()
    decided = [{name: value for name, value in record.items() if name != "ts"} for record in events]
    told = {
        "workers": trainer.accelerator.num_processes,
        "steps": trainer.state.global_step,
        "events": decided,
        "weights": [float(parameter.detach().double().sum()) for parameter in trainer.model.parameters()],
    }
    (folder / f"worker{trainer.args.process_index}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "trained", int(sys.argv[3]))
