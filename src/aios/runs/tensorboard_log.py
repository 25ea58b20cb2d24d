"""The training log once more, for TensorBoard: every number of every record, learning-rate changes also as text."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aios.errors import UserError
from aios.extras import remedy

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FLUSH_SECONDS = 10
"""A reader sees a number at most so much later than it was written."""
_COMMON_KEYS = ("event", "ts", "step", "rank", "gpu_id", "config")


def check_tensorboard() -> None:
    """Refuse a run that could not write for TensorBoard.

    Raises:
        UserError: when the package is not installed.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(f"--tensorboard needs the package tensorboard, which is not installed: {remedy('tensorboard')}")


def scalars(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """(tag, number) of every number in a log record: `train/ce`, `train/lr/0` (per group), `.../metrics/cv`.

    NaN and infinities are numbers; None and text are not.
    """
    for key, value in record.items():
        if key not in _COMMON_KEYS:
            yield from _numbers(f"{record['event']}/{key}", value)


def _numbers(tag: str, value: Any) -> Iterator[tuple[str, float]]:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield tag, float(value)
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(f"{tag}/{name}", inner)
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from _numbers(f"{tag}/{i}", inner)


def text(record: Mapping[str, Any]) -> str | None:
    """What a record says in words (Markdown): reason, settings of a run, sample; None where it has none."""
    if "config" in record:
        return "```\n" + json.dumps(record["config"], indent=2) + "\n```"
    if record.get("event") == "sample":
        return f"*{record['prompt']}*{record['text']}"
    if "reason" not in record:
        return None
    if "old_lr" in record:
        return f"**{record['decision']}** {record['old_lr']:.4g} -> {record['new_lr']:.4g}: {record['reason']}"
    return str(record["reason"])


class TensorBoardLog:
    """Writes log records as TensorBoard events into `folder`; with None it does nothing.

    A run resumed at `first_step` goes on in the same folder: what was written for later steps is no longer shown.
    Worker `rank` of several that write has a folder of its own, `worker-<rank>`, and with it curves of its own.
    """

    def __init__(self, folder: str | None, first_step: int, rank: int | None = None) -> None:
        if folder is not None and rank is not None:
            folder = f"{folder}/worker-{rank}"
        self._writer = _open(folder, first_step) if folder is not None else None

    def write(self, record: Mapping[str, Any]) -> None:
        """Add the numbers and the text of a record at its step."""
        if self._writer is None:
            return
        step, written = record["step"], record["ts"]
        for tag, value in scalars(record):
            self._writer.add_scalar(tag, value, step, walltime=written)
        if (words := text(record)) is not None:
            self._writer.add_text(record["event"], words, step, walltime=written)

    def __enter__(self) -> TensorBoardLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _open(folder: str, first_step: int) -> SummaryWriter:
    # Imported late: the package is optional.
    from torch.utils.tensorboard import SummaryWriter

    purge_step = first_step + 1 if first_step > 0 else None
    return SummaryWriter(folder, purge_step=purge_step, flush_secs=FLUSH_SECONDS)
