"""The mean of several models' weights: exact for equals, indifferent to the order, by the samples trained on."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.distributed.merging import merge_shares, weighted_mean

samples = st.lists(st.integers(0, 10**9), min_size=1, max_size=6)
numbers = st.floats(-1e6, 1e6, width=32)


def tensors_of(count: int) -> st.SearchStrategy[list[torch.Tensor]]:
    rows = st.lists(numbers, min_size=4, max_size=4).map(torch.tensor)
    return st.lists(rows, min_size=count, max_size=count)


@given(samples)
def test_shares_sum_to_one_and_follow_the_samples(counts: list[int]) -> None:
    shares = merge_shares(counts)
    assert math.isclose(sum(shares), 1.0)
    assert all(share >= 0 for share in shares)
    for one, share in zip(counts, shares, strict=True):
        for other, others_share in zip(counts, shares, strict=True):
            assert share * other == pytest.approx(others_share * one)


def test_nobody_trained_counts_alike_and_the_unusable_count_nothing() -> None:
    assert merge_shares([0, 0]) == [0.5, 0.5]
    assert merge_shares([30, 10, 10], [False, True, True]) == [0.0, 0.5, 0.5]
    assert merge_shares([30, 0, 0], [False, True, True]) == [0.0, 0.5, 0.5]
    with pytest.raises(ValueError, match="no worker"):
        merge_shares([3, 4], [False, False])


@settings(deadline=None)  # torch is slow the first time
@given(st.lists(numbers, min_size=1, max_size=8), samples)
def test_mean_of_equals_is_that_tensor_bit_for_bit(values: list[float], counts: list[int]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(weighted_mean([tensor.clone() for _ in counts], merge_shares(counts)), tensor)


@settings(deadline=None)  # torch is slow the first time
@given(tensors_of(3), st.lists(st.integers(1, 1000), min_size=3, max_size=3))
def test_order_of_the_workers_does_not_matter(tensors: list[torch.Tensor], counts: list[int]) -> None:
    shares = merge_shares(counts)
    expected = sum(share * tensor.double() for share, tensor in zip(shares, tensors, strict=True))
    scale = float(torch.stack(tensors).abs().max()) + 1e-30
    for order in permutations(range(3)):
        mean = weighted_mean([tensors[i] for i in order], [shares[i] for i in order])
        assert mean.dtype == torch.float32
        torch.testing.assert_close(mean.double(), expected, rtol=0, atol=1e-6 * scale)


def test_a_worker_without_share_may_hold_anything() -> None:
    good = torch.tensor([1.0, 3.0])
    bad = torch.tensor([math.nan, math.inf])
    assert weighted_mean([bad, good], [0.0, 1.0]).tolist() == [1.0, 3.0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_the_type_of_the_tensors_is_kept(dtype: torch.dtype) -> None:
    mean = weighted_mean([torch.tensor([1, 4]).to(dtype), torch.tensor([3, 4]).to(dtype)], [0.5, 0.5])
    assert mean.dtype == dtype
    assert mean.tolist() == ([2.0, 4.0] if dtype.is_floating_point else [1, 4])
