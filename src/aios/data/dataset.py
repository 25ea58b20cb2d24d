"""Windows over a token file, their split into training and evaluation, and the batches both draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from aios.core.hrm_models.batch import Batch
from aios.data.decoding import UTF_8
from aios.data.sampling import sample_indices
from aios.data.text_source import check_dataset
from aios.data.token_cache import ProgressCallback, TokenFile, tokenize_source
from aios.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BLOCK_TOKENS = 1024 * 1024


@dataclass(frozen=True)
class DataConfig:
    """What to train and evaluate on."""

    dataset_file: Path | None = None
    """What `check_dataset` opens: files of text or rows, or a folder of them; None is the bundled corpus."""
    eval_file: Path | None = None
    """The same for evaluation; None holds out a tail of the training data."""
    encoding: str = UTF_8
    """Of the plain text files in both, as Python names it."""
    seq_len: int = field(kw_only=True)
    """Tokens of one window, at least 2."""
    eval_fraction: float = 0.05
    """Part of the tokens to hold out when there is no eval_file; at least one window is."""
    max_eval_tokens: int = 1_000_000
    """Upper bound of the held-out tail, in tokens."""
    cache_dir: Path | None = None
    """Where tokenised data is kept; None is `default_cache_dir()`."""


class TokenWindows:
    """Windows of `seq_len` tokens over the tokens [start, stop) of a file.

    Neighbours share one token, the last of one being the first of the next: a causal model shifts its labels
    inside the window, and so every token but the very first is a target exactly once. Up to seq_len - 2
    tokens at the end that fill no window are left out. So are, of instructions, windows in which nothing is learned:
    their loss would be 0.
    """

    def __init__(self, tokens: TokenFile, start: int, stop: int, seq_len: int) -> None:
        self.tokens = tokens
        self.start = start
        self.stop = stop
        self.seq_len = seq_len
        self._numbers = self._with_targets() if tokens.has_unlearned else None

    def __len__(self) -> int:
        return self._count if self._numbers is None else len(self._numbers)

    def __getitem__(self, index: int) -> torch.Tensor:
        """Ids of window `index` as int64 [seq_len]; IndexError outside range(len(self))."""
        return self.rows([index]).input_ids[0]

    def rows(self, indices: Sequence[int]) -> Batch:
        """The windows at `indices`, one a row; IndexError outside range(len(self))."""
        stored = torch.stack([self._stored(index) for index in indices])
        return Batch(stored, stored) if self._numbers is None else Batch.of_stored(stored)

    @property
    def _count(self) -> int:
        """All windows in the range."""
        return max(0, (self.stop - self.start - 1) // (self.seq_len - 1))

    def _stored(self, index: int) -> torch.Tensor:
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        number = index if self._numbers is None else int(self._numbers[index])
        first = self.start + number * (self.seq_len - 1)
        return torch.from_numpy(self.tokens.read(first, first + self.seq_len))

    def _with_targets(self) -> npt.NDArray[np.int64]:
        """Numbers of the windows in which something is learned; streamed."""
        step, found = self.seq_len - 1, []
        at_a_time = max(1, _BLOCK_TOKENS // step)
        for number in range(0, self._count, at_a_time):
            first = self.start + 1 + number * step  # the first token of a window is no target in it
            targets = self.tokens.read(first, first + min(at_a_time, self._count - number) * step) >= 0
            found.append(number + np.flatnonzero(targets.reshape(-1, step).any(axis=1)))
        return np.concatenate(found) if found else np.zeros(0, np.int64)


class TrainBatches:
    """Shuffled training batches, a function of seed and position alone: to resume takes only the position.

    Positions count global micro-batches. The ranks of one position draw disjoint rows, and all ranks together
    run through every window once per epoch.
    """

    def __init__(self, windows: TokenWindows, seed: int, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.windows = windows
        self.seed = seed
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

    def indices(self, position: int) -> list[int]:
        """Numbers of the windows in the batch at `position`, this rank's rows only, [batch_size]."""
        first = (position * self.world_size + self.rank) * self.batch_size
        drawn: list[int] = sample_indices(self.seed, first, self.batch_size, len(self.windows)).tolist()
        return drawn

    def batch(self, position: int) -> Batch:
        """The batch at `position`, [batch_size, seq_len]."""
        return self.windows.rows(self.indices(position))


class EvalBatches:
    """Evaluation batches in text order; where `limit` cuts them, spread evenly over the whole range.

    Iterating yields [rows, seq_len], rows = batch_size except perhaps in the last one. Always the same.
    """

    def __init__(self, windows: TokenWindows, batch_size: int, limit: int | None = None) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.rows = len(windows) if limit is None else min(len(windows), limit * batch_size)

    @cached_property
    def id(self) -> str:
        """A digest, in hex, of all tokens in their batches; reads them when it is first asked for."""
        digest = hashlib.sha256()
        for batch in self:
            digest.update(repr(tuple(batch.input_ids.shape)).encode())
            for tokens in {id(part): part for part in batch}.values():  # one, of plain text
                digest.update(tokens.numpy().tobytes())
        return digest.hexdigest()

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        chosen = [row * len(self.windows) // self.rows for row in range(self.rows)]
        for first in range(0, self.rows, self.batch_size):
            yield self.windows.rows(chosen[first : first + self.batch_size])


@dataclass(frozen=True)
class DataSplit:
    """Training and evaluation windows that share no token."""

    train: TokenWindows
    """Windows to train on, at least one."""
    eval: TokenWindows
    """Windows to evaluate on, at least one."""
    dataset_name: str
    """The training data as the user named it."""
    eval_name: str
    """The evaluation data as the user named it; dataset_name when it is held out."""


def load_data(
    config: DataConfig, tokenizer: PreTrainedTokenizerBase, on_progress: ProgressCallback | None = None
) -> DataSplit:
    """Tokenise (or find cached) the data of `config` and split it.

    Raises UserError for unusable files, and with both numbers when there are too few tokens for one training
    and one evaluation window.
    """
    if config.seq_len < 2:
        raise UserError(f"The sequence length is {config.seq_len}; set --max-seq-len to 2 or more.")
    paths = (config.dataset_file, *([] if config.eval_file is None else [config.eval_file]))
    sources = [check_dataset(path, config.encoding) for path in paths]
    files = [tokenize_source(source, tokenizer, config.cache_dir, on_progress) for source in sources]
    names = [source.name for source in sources]
    if len(files) == 1:
        split = DataSplit(*_split_tail(files[0], names[0], config), names[0], names[0])
    else:
        train, evaluation = (_whole_file(f, name, config.seq_len) for f, name in zip(files, names, strict=True))
        split = DataSplit(train, evaluation, names[0], names[1])
    _require_targets(split)
    return split


def _whole_file(tokens: TokenFile, name: str, seq_len: int) -> TokenWindows:
    _require(tokens.count, seq_len, f"The dataset {name}", "one sequence")
    return TokenWindows(tokens, 0, tokens.count, seq_len)


def _split_tail(tokens: TokenFile, name: str, config: DataConfig) -> tuple[TokenWindows, TokenWindows]:
    """Hold out the tail. The border is the end of a training window, so no token falls between."""
    seq_len = config.seq_len
    _require(tokens.count, seq_len, f"The dataset {name}", "one sequence")
    _require(
        tokens.count,
        2 * seq_len,
        f"The dataset {name}",
        "one sequence to train on and one held out for evaluation (--eval-file gives it separately)",
    )
    held_out = min(round(tokens.count * config.eval_fraction), config.max_eval_tokens)
    windows = (tokens.count - max(held_out, seq_len) - 1) // (seq_len - 1)
    border = max(1, windows) * (seq_len - 1) + 1
    return TokenWindows(tokens, 0, border, seq_len), TokenWindows(tokens, border, tokens.count, seq_len)


def _require_targets(split: DataSplit) -> None:
    for windows, name, part in ((split.train, split.dataset_name, "train"), (split.eval, split.eval_name, "evaluate")):
        if len(windows) == 0:
            raise UserError(
                f"The dataset {name} has no completion to {part} on: all its sequences lie within prompts; give more "
                "rows, raise --max-seq-len, or name an --eval-file."
            )


def _require(count: int, needed: int, subject: str, purpose: str) -> None:
    if count < needed:
        raise UserError(
            f"{subject} has {count} tokens but {purpose} needs {needed}; give more text or lower --max-seq-len."
        )


def unigram_entropy(windows: TokenWindows) -> float:
    """Entropy, in nats per token, of how often each token is to be learned in the range of `windows`; streamed.

    It is the lowest mean cross-entropy of any model that ignores context, so a trained model has to beat it.
    """
    counts = np.zeros(0, dtype=np.int64)
    for first in range(windows.start, windows.stop, _BLOCK_TOKENS):
        block = windows.tokens.read(first, min(first + _BLOCK_TOKENS, windows.stop))
        block = block[block >= 0] if windows.tokens.has_unlearned else block
        more = np.bincount(block, minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())


def data_id(windows: TokenWindows, seed: int) -> str:
    """Names the order of the training data: equal exactly when a position means the same batch again."""
    ends = [windows.tokens.read(windows.start, min(windows.stop, windows.start + 65536)).tobytes()]
    ends.append(windows.tokens.read(max(windows.start, windows.stop - 65536), windows.stop).tobytes())
    shape = f"{windows.start}:{windows.stop}:{windows.seq_len}:{seed}"
    return hashlib.sha256(b"".join([*ends, shape.encode()])).hexdigest()
