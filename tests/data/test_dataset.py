from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from aios.data.dataset import DataConfig, EvalBatches, TokenWindows, TrainBatches, load_data, unigram_entropy
from aios.data.token_cache import TokenFile
from aios.errors import UserError


def numbered_tokens(tmp_path: Path, count: int) -> TokenFile:
    """A file whose token i is i, so that a token says where it came from."""
    path = tmp_path / "numbered.bin"
    np.arange(count, dtype="<u4").tofile(path)
    return TokenFile(path, count, "<u4")


def targets_of_epoch(windows: TokenWindows, seed: int, batch_size: int, world_size: int) -> list[int]:
    """Targets (all tokens but the first of each window) in the first epoch; batches must fill it exactly."""
    batches, rest = divmod(len(windows), batch_size * world_size)
    assert rest == 0
    ranks = [TrainBatches(windows, seed, batch_size, rank, world_size) for rank in range(world_size)]
    drawn = [rank.batch(position).input_ids for position in range(batches) for rank in ranks]
    targets: list[int] = torch.cat(drawn)[:, 1:].flatten().tolist()
    return targets


@given(
    seq_len=st.integers(2, 9),
    seed=st.integers(0, 2**32),
    world_size=st.integers(1, 3),
    start=st.integers(0, 5),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_every_token_is_a_target_once_per_epoch_over_all_ranks(
    tmp_path: Path, seq_len: int, seed: int, world_size: int, start: int
) -> None:
    stop = start + 12 * (seq_len - 1) + 1
    windows = TokenWindows(numbered_tokens(tmp_path, stop + 3), start, stop, seq_len)
    assert len(windows) == 12
    assert sorted(targets_of_epoch(windows, seed, 2, world_size)) == list(range(start + 1, stop))


def test_window_outside_the_range_is_an_error(tmp_path: Path) -> None:
    windows = TokenWindows(numbered_tokens(tmp_path, 20), 0, 20, 5)
    assert len(windows) == 4
    assert windows[3].tolist() == [12, 13, 14, 15, 16]
    for index in (-1, 4):
        with pytest.raises(IndexError):
            windows[index]


def test_batches_depend_on_seed_and_position_alone(tmp_path: Path) -> None:
    windows = TokenWindows(numbered_tokens(tmp_path, 1000), 0, 1000, 8)
    straight = TrainBatches(windows, seed=5, batch_size=4)
    history = [straight.batch(position).input_ids for position in range(100)]
    for position in (99, 0, 41):
        resumed = TrainBatches(TokenWindows(windows.tokens, 0, 1000, 8), seed=5, batch_size=4)
        assert torch.equal(resumed.batch(position).input_ids, history[position])
    other_seed = TrainBatches(windows, seed=6, batch_size=4)
    assert not torch.equal(other_seed.batch(0).input_ids, history[0])
    assert history[0].shape == (4, 8)
    assert history[0].dtype == torch.int64


def test_epochs_come_in_different_orders(tmp_path: Path) -> None:
    batches = TrainBatches(TokenWindows(numbered_tokens(tmp_path, 81), 0, 81, 5), seed=1, batch_size=20)
    first, second = batches.indices(0), batches.indices(1)
    assert first != second
    assert sorted(first) == sorted(second) == list(range(20))


def test_batch_larger_than_the_data_runs_on_into_the_next_epochs(tmp_path: Path) -> None:
    batches = TrainBatches(TokenWindows(numbered_tokens(tmp_path, 13), 0, 13, 5), seed=1, batch_size=9)
    assert Counter(batches.indices(0)) == {0: 3, 1: 3, 2: 3}


def test_ranks_of_one_position_share_no_window(tmp_path: Path) -> None:
    windows = TokenWindows(numbered_tokens(tmp_path, 1000), 0, 1000, 5)
    ranks = [TrainBatches(windows, 3, 4, rank, 4) for rank in range(4)]
    single = TrainBatches(windows, 3, 16)
    for position in range(10):
        drawn = [index for rank in ranks for index in rank.indices(position)]
        assert len(set(drawn)) == 16
        assert drawn == single.indices(position)


def test_evaluation_covers_everything_in_order(tmp_path: Path) -> None:
    batches = EvalBatches(TokenWindows(numbered_tokens(tmp_path, 41), 0, 41, 5), batch_size=4)
    rows = torch.cat([batch.input_ids for batch in batches])
    assert rows[:, 1:].flatten().tolist() == list(range(1, 41))
    assert [len(batch.input_ids) for batch in batches] == [4, 4, 2]
    assert (len(batches), sum(batch.targets for batch in batches)) == (3, 40)


def test_limited_evaluation_spreads_over_the_range_and_repeats(tmp_path: Path) -> None:
    batches = EvalBatches(TokenWindows(numbered_tokens(tmp_path, 401), 0, 401, 5), batch_size=2, limit=2)
    rows = torch.cat([batch.input_ids for batch in batches])
    assert rows[:, 0].tolist() == [0, 100, 200, 300]
    assert torch.equal(rows, torch.cat([batch.input_ids for batch in batches]))
    assert (len(batches), sum(batch.targets for batch in batches)) == (2, 16)


def test_default_data_holds_out_a_tail_that_is_never_trained_on(tokenizer: PreTrainedTokenizerBase) -> None:
    split = load_data(DataConfig(seq_len=128), tokenizer)
    assert split.train.start == 0
    assert split.train.stop == split.eval.start
    assert split.eval.stop == split.eval.tokens.count
    held_out = (split.eval.stop - split.eval.start) / split.eval.stop
    assert 0.05 <= held_out < 0.052
    assert (len(split.train) - 1) * 127 + 128 == split.train.stop  # the windows end exactly at the border
    assert split.dataset_name == split.eval_name


@given(seq_len=st.integers(2, 40), fraction=st.floats(0.001, 0.9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
def test_any_split_keeps_both_sides_usable_and_apart(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, seq_len: int, fraction: float
) -> None:
    path = tmp_path / "short.txt"
    if not path.exists():
        path.write_text("And God said, Let there be light: and there was light. " * 8)
    split = load_data(DataConfig(path, seq_len=seq_len, eval_fraction=fraction), tokenizer)
    assert len(split.train) >= 1
    assert len(split.eval) >= 1
    last_trained = split.train.start + len(split.train) * (seq_len - 1)
    assert last_trained == split.eval.start - 1


def test_held_out_tail_is_bounded(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    split = load_data(DataConfig(max_eval_tokens=1000, seq_len=128), tokenizer)
    assert 1000 <= split.eval.stop - split.eval.start < 1000 + 128


def test_eval_file_leaves_all_of_the_dataset_to_training(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    train, evaluation = tmp_path / "train.txt", tmp_path / "eval.txt"
    train.write_text("And it came to pass. " * 30)
    evaluation.write_text("In those days there was no king. " * 30)
    split = load_data(DataConfig(train, evaluation, seq_len=16), tokenizer)
    assert split.train.stop == split.train.tokens.count
    assert "And it came to pass" in tokenizer.decode(split.train[0])
    assert "no king" in tokenizer.decode(split.eval[0])
    assert split.eval_name == str(evaluation)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (5, "has 6 tokens but one sequence needs 128"),
        (200, "has 201 tokens but one sequence to train on and one held out .*--eval-file.* needs 256"),
    ],
)
def test_too_few_tokens_names_both_numbers_and_the_remedy(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, words: int, message: str
) -> None:
    path = tmp_path / "few.txt"
    path.write_text(" and" * words)
    with pytest.raises(UserError, match=rf"few\.txt {message}; give more text or lower --max-seq-len"):
        load_data(DataConfig(path, seq_len=128), tokenizer)


def test_eval_file_with_too_few_tokens_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    path = tmp_path / "few.txt"
    path.write_text("too short")
    with pytest.raises(UserError, match=r"few\.txt has \d tokens but one sequence needs 128"):
        load_data(DataConfig(eval_file=path, seq_len=128), tokenizer)


def test_sequence_without_a_target_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(UserError, match="--max-seq-len to 2 or more"):
        load_data(DataConfig(seq_len=1), tokenizer)


def test_unigram_entropy_of_known_frequencies(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    np.array([9, 9, 9, 9] + [1, 1, 2, 3] * 600_000, dtype="<u2").tofile(path)
    windows = TokenWindows(TokenFile(path, 2_400_004, "<u2"), 4, 2_400_004, 8)
    assert unigram_entropy(windows) == pytest.approx(1.5 * math.log(2))
