"""What independent workers hand in to be merged: weights, training state and a report, each a folder of its own.

`<brain>/merge/<run id>/round-<k>/rank-<r>/` appears by a rename, when every file in it is on the disk: a worker that
dies on the way leaves at most a hidden folder, which the next try replaces. Nothing here is ever unpickled.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from aios.core.exact_tensors import check_exact
from aios.distributed.merging import merge_shares, weighted_mean
from aios.file_names import WEIGHTS_FILE
from aios.files import fsync

_STATE_FILE = "state.pt"
_REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Report:
    """What a worker says of the round it hands in."""

    rank: int
    """Its number."""
    step: int
    """Global optimizer steps it has done."""
    samples: int
    """Sequences it has trained on since the last merge."""
    done: bool
    """Whether its run ends here."""
    loss: float
    """Cross-entropy of its newest step (nats per token); NaN before the first."""
    eval_loss: float | None = None
    """Its own held-out loss (nats per token), where it was evaluated."""
    trouble: str | None = None
    """Why it cannot go on; its weights are then the last good ones."""
    lr: float = 0.0
    """Learning rate in force."""


@dataclass(frozen=True)
class Contribution:
    """A report and where the files are that it speaks of."""

    folder: Path
    """Holds weights and state."""
    report: Report
    """What the worker said."""

    @property
    def weights(self) -> Path:
        """The worker's weights (safetensors)."""
        return self.folder / WEIGHTS_FILE

    def load_state(self) -> dict[str, Any]:
        """The worker's checkpoint dict, on the CPU; tensors are read from the file when they are used."""
        state: dict[str, Any] = torch.load(
            self.folder / _STATE_FILE, map_location="cpu", weights_only=True, mmap=True
        )  # fmt: skip
        return state


def round_folder(folder: Path, number: int) -> Path:
    """Where the contributions to merge `number` of a sitting lie; `folder` is the sitting's."""
    return folder / f"round-{number}"


def hand_in(folder: Path, report: Report, state: dict[str, Any], save_weights: Callable[[Path], None]) -> None:
    """Put the worker's contribution into the round's `folder`, complete or not at all.

    `save_weights` writes `model.safetensors` into the folder it is given.

    Raises:
        FileNotFoundError: when the round's folder is gone: the sitting that asked for it is over.
    """
    final = folder / f"rank-{report.rank}"
    partial = folder / f".partial-{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    save_weights(partial)
    torch.save(state, partial / _STATE_FILE)
    (partial / _REPORT_FILE).write_text(json.dumps(asdict(report)), encoding="utf-8")
    for file in partial.iterdir():
        fsync(file)
    partial.rename(final)
    fsync(folder)


def find_contribution(folder: Path, rank: int) -> Contribution | None:
    """What worker `rank` has handed in for the round, None as long as there is nothing."""
    mine = folder / f"rank-{rank}"
    if not mine.exists():
        return None
    return Contribution(mine, Report(**json.loads((mine / _REPORT_FILE).read_text(encoding="utf-8"))))


def merge(contributions: Sequence[Contribution]) -> tuple[dict[str, Tensor], list[float]]:
    """The merged weights by name, on the CPU, and what each contribution counted.

    One with a number that is not finite does not count. One tensor of each worker is in memory at a time.

    Raises:
        ValueError: when none of them can be used.
        UserError: when they do not hold the same tensors.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(c.weights, framework="pt")) for c in contributions]
        first, *others = ({name: file.get_tensor(name).to("meta") for name in list(file.keys())} for file in files)
        for contribution, found in zip(contributions[1:], others, strict=True):
            check_exact(found, first, contribution.weights)
        names = list(first)
        usable = [all(bool(file.get_tensor(name).isfinite().all()) for name in names) for file in files]
        shares = merge_shares([c.report.samples for c in contributions], usable)
        return {name: weighted_mean([file.get_tensor(name) for file in files], shares) for name in names}, shares
