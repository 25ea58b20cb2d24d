"""The newest checkpoint of a brain that can be used, and the tokenizer that its text was cut with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aios.errors import UserError
from aios.runs.checkpoints import newest_valid
from aios.runs.publishing import holds_tokenizer


@dataclass(frozen=True)
class NewestCheckpoint:
    """Where weights and tokenizer lie."""

    path: Path
    """The checkpoint's folder."""
    brain_dir: Path
    """The brain's."""
    skipped: tuple[str, ...]
    """Damaged checkpoints passed over, a sentence each."""

    @property
    def tokenizer(self) -> Path:
        """The folder that holds the tokenizer: the brain's where the checkpoint has none."""
        return self.path if holds_tokenizer(self.path) else self.brain_dir

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever uses both should know, a sentence each."""
        if self.tokenizer == self.path:
            return self.skipped
        return (*self.skipped, f"The checkpoint {self.path} holds no tokenizer; using the one in {self.tokenizer}.")


def find_newest(brain_dir: Path, purpose: str, remedy: str, if_damaged: str | None = None) -> NewestCheckpoint:
    """The newest valid checkpoint of the brain in `brain_dir`.

    Raises:
        UserError: when there is none to `purpose`, with what to do: `remedy`, or `if_damaged` where that helps no more.
    """
    path, damaged = newest_valid(brain_dir)
    skipped = tuple(str(each) for each in damaged)
    if path is None:
        why = f" ({' '.join(skipped)})" if skipped else ""
        remedy = if_damaged if skipped and if_damaged is not None else remedy
        raise UserError(f"There is no checkpoint to {purpose} in {brain_dir}{why}; {remedy}.")
    return NewestCheckpoint(path, brain_dir, skipped)
