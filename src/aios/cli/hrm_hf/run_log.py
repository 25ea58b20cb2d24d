"""The log of a run, open for writing, with its copy for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from aios.auto_lr.events import LogFn, ignore
from aios.runs.lock import BrainLock
from aios.runs.storage import hold_on, writing
from aios.runs.tensorboard_log import TensorBoardLog
from aios.runs.training_log import TrainingLog
from aios.settings.config import TrainingConfig

NO_TAGS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class RunLog:
    """What every record of a run goes into."""

    config: TrainingConfig
    """Settings of the run."""
    file: TrainingLog
    """Its log."""
    board: TensorBoardLog
    """The same for TensorBoard, where that is wanted."""

    def log_fn(self, tags: Mapping[str, Any] = NO_TAGS, shown: Callable[[dict[str, Any]], object] = ignore) -> LogFn:
        """Writes a record with `tags` behind its own keys, then has it `shown` as it was written.

        What is returned raises StorageError when the disk takes no more.
        """

        def log(record: dict[str, Any]) -> None:
            with writing(self.config.log_path.parent, self.config.brain_dir):
                written = self.file.write({**record, **tags})
                self.board.write(written)
            shown(written)

        return log


@contextmanager
def open_log(
    config: TrainingConfig,
    first_step: int,
    writes: bool = True,
    repair: bool = True,
    rank: int | None = None,
    lock: BrainLock | None = None,
) -> Iterator[RunLog]:
    """The log of a run that goes on at `first_step`; one that keeps nothing for a worker that does not write.

    `repair` as `TrainingLog` has it, `rank` as `TensorBoardLog`. Before records go into another file that has
    taken the log's place, the `lock` is asked whether that is still this run's.

    Raises:
        StorageError: when it cannot be opened.
    """
    follow = partial(hold_on, lock, config.brain_dir) if lock is not None else None
    with ExitStack() as opened:
        with writing(config.log_path.parent, config.brain_dir):
            file = opened.enter_context(TrainingLog(config.log_path if writes else None, repair, follow))
            board = opened.enter_context(TensorBoardLog(config.tensorboard if writes else None, first_step, rank))
        yield RunLog(config, file, board)
