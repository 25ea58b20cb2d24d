"""Windows over a token file, their split into training and evaluation, and the batches both draw."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from aios.data.sampling import sample_indices
from aios.data.text_source import check_dataset
from aios.data.token_cache import ProgressCallback, TokenFile, tokenize_source
from aios.data.tokenizer import bundled_corpus_path
from aios.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ENTROPY_BLOCK = 1024 * 1024


@dataclass(frozen=True)
class DataConfig:
    """What to train and evaluate on."""

    dataset_file: Path | None = None
    """Text file, .jsonl file or folder of them; None is the bundled corpus."""
    eval_file: Path | None = None
    """The same for evaluation; None holds out a tail of the training data."""
    seq_len: int = 128
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
    tokens at the end that fill no window are left out.
    """

    def __init__(self, tokens: TokenFile, start: int, stop: int, seq_len: int) -> None:
        self.tokens = tokens
        self.start = start
        self.stop = stop
        self.seq_len = seq_len

    def __len__(self) -> int:
        return max(0, (self.stop - self.start - 1) // (self.seq_len - 1))

    def __getitem__(self, index: int) -> torch.Tensor:
        """Window `index` as int64 [seq_len]; IndexError outside range(len(self))."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        first = self.start + index * (self.seq_len - 1)
        return torch.from_numpy(self.tokens.read(first, first + self.seq_len))


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

    def batch(self, position: int) -> torch.Tensor:
        """Token ids at `position`, int64 [batch_size, seq_len]."""
        return torch.stack([self.windows[index] for index in self.indices(position)])


class EvalBatches:
    """Evaluation batches in text order; where `limit` cuts them, spread evenly over the whole range.

    Iterating yields int64 [rows, seq_len], rows = batch_size except perhaps in the last one. Always the same.
    """

    def __init__(self, windows: TokenWindows, batch_size: int, limit: int | None = None) -> None:
        self.windows = windows
        self.batch_size = batch_size
        self.rows = len(windows) if limit is None else min(len(windows), limit * batch_size)

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def target_tokens(self) -> int:
        """Tokens predicted in one pass."""
        return self.rows * (self.windows.seq_len - 1)

    def __iter__(self) -> Iterator[torch.Tensor]:
        chosen = [row * len(self.windows) // self.rows for row in range(self.rows)]
        for first in range(0, self.rows, self.batch_size):
            yield torch.stack([self.windows[index] for index in chosen[first : first + self.batch_size]])


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
    dataset = config.dataset_file or bundled_corpus_path()
    sources = [check_dataset(path) for path in (dataset, config.eval_file) if path is not None]
    files = [tokenize_source(source, tokenizer, config.cache_dir, on_progress) for source in sources]
    names = [source.name for source in sources]
    if len(files) == 1:
        train, held_out = _split_tail(files[0], names[0], config)
        return DataSplit(train, held_out, names[0], names[0])
    train, evaluation = (_whole_file(file, name, config.seq_len) for file, name in zip(files, names, strict=True))
    return DataSplit(train, evaluation, names[0], names[1])


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


def _require(count: int, needed: int, subject: str, purpose: str) -> None:
    if count < needed:
        raise UserError(
            f"{subject} has {count} tokens but {purpose} needs {needed}; give more text or lower --max-seq-len."
        )


def unigram_entropy(windows: TokenWindows) -> float:
    """Entropy, in nats per token, of how often each token occurs in the range of `windows`; streamed.

    It is the lowest mean cross-entropy of any model that ignores context, so a trained model has to beat it.
    """
    counts = np.zeros(0, dtype=np.int64)
    for first in range(windows.start, windows.stop, _ENTROPY_BLOCK):
        block = windows.tokens.read(first, min(first + _ENTROPY_BLOCK, windows.stop))
        more = np.bincount(block, minlength=len(counts))
        more[: len(counts)] += counts
        counts = more
    frequencies = counts[counts > 0] / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())
