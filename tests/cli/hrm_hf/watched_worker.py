"""`aios` as one worker, watched and, if asked, harmed: for torchrun to start.

    torchrun ... watched_worker.py RATES_FOLDER POISONED_RANK POISONED_STEPS aios-arguments...

Writes the learning rate of each of its updates to RATES_FOLDER/rank-<n>.json. On rank POISONED_RANK the embedding
puts out NaN in the training passes POISONED_STEPS (comma separated, from 1): what broken data or memory does.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook

from aios.cli.app import main


def watch(folder: Path) -> None:
    """Note the learning rate of every update; written when the worker ends."""
    rates: list[list[float]] = []

    def note(optimizer: Any, args: Any, kwargs: Any) -> None:
        rates.append([float(group["lr"]) for group in optimizer.param_groups])

    register_optimizer_step_pre_hook(note)
    atexit.register(lambda: (folder / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(rates)))


def poison(steps: set[int]) -> None:
    """Make the embedding of those training passes NaN."""
    passes = 0

    def harm(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        nonlocal passes
        if not isinstance(module, nn.Embedding) or not module.training:
            return output
        passes += 1
        return output * float("nan") if passes in steps else output

    register_module_forward_hook(harm)


if __name__ == "__main__":
    folder, rank, steps = sys.argv[1:4]
    watch(Path(folder))
    if os.environ["RANK"] == rank:
        poison({int(step) for step in steps.split(",")})
    sys.argv = ["aios", *sys.argv[4:]]
    main()
