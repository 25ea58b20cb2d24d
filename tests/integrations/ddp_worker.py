"""One of two processes under `accelerate launch`: a steered run, what it decided and the weights it ended with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from accelerate import PartialState

from aios.integrations.transformers import AutoLRCallback
from integrations.test_accelerate import Run
from integrations.tiny_trainers import as_if_trained, gpt2, make_trainer

Events = list[dict[str, Any]]


def by_trainer(folder: Path, model: Any, steps: int) -> tuple[int, Events, Any]:
    events: Events = []
    trainer = make_trainer(folder, model, max_steps=steps)
    AutoLRCallback.attach(trainer, log_fn=events.append)
    trainer.train()
    return trainer.state.global_step, events, trainer.model


def by_loop(folder: Path, model: Any, steps: int) -> tuple[int, Events, Any]:
    run = Run(model, steps, accumulate=2)
    run.train(steps)
    return run.auto.auto.step_count, run.events, run.model


def main(folder: Path, kind: str, start: str, steps: int) -> None:
    model = as_if_trained(gpt2()) if start == "trained" else gpt2()
    done, events, trained = {"trainer": by_trainer, "loop": by_loop}[kind](folder, model, steps)
    told = {
        "workers": PartialState().num_processes,
        "steps": done,
        "events": [{name: value for name, value in record.items() if name != "ts"} for record in events],
        "weights": [float(parameter.detach().double().sum()) for parameter in trained.parameters()],
    }
    (folder / f"worker{PartialState().process_index}.json").write_text(json.dumps(told))
    PartialState().destroy_process_group()  # else a thread of gloo's may end the process with an abort


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
