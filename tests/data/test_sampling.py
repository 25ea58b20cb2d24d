from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aios.data.sampling import epoch_key, permute, sample_index, sample_indices

SEEDS = st.integers(min_value=-(2**70), max_value=2**70)


@given(n=st.integers(1, 700), seed=SEEDS, epoch=st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    drawn = sample_indices(seed, epoch * n, n, n)
    assert sorted(drawn.tolist()) == list(range(n))


@given(n=st.integers(1, 2**45), seed=SEEDS, first=st.integers(0, 2**50), count=st.integers(0, 40))
def test_fast_path_agrees_with_the_scalar_reference(n: int, seed: int, first: int, count: int) -> None:
    expected = [sample_index(seed, position, n) for position in range(first, first + count)]
    assert sample_indices(seed, first, count, n).tolist() == expected


@given(n=st.integers(1, 2**60), key=st.integers(0, 2**64 - 1), data=st.data())
def test_permutation_stays_in_range_and_tells_neighbours_apart(n: int, key: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, n - 1))
    image = permute(index, n, key)
    assert 0 <= image < n
    if index + 1 < n:
        assert permute(index + 1, n, key) != image


def test_epochs_and_seeds_give_different_orders() -> None:
    orders = {tuple(sample_indices(seed, epoch * 100, 100, 100)) for seed in range(5) for epoch in range(20)}
    assert len(orders) == 100


def test_order_is_fixed_for_good() -> None:
    """A change here breaks the exact resume of every existing run."""
    assert sample_indices(1, 0, 10, 10).tolist() == [7, 8, 2, 3, 9, 1, 0, 6, 4, 5]


@pytest.mark.parametrize("n", [2, 3, 5, 8, 13])
def test_every_index_lands_everywhere_equally_often(n: int) -> None:
    trials = 3000
    counts = np.zeros((n, n))
    for epoch in range(trials):
        counts[np.arange(n), sample_indices(7, epoch * n, n, n)] += 1
    expected = trials / n
    chi_square = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert chi_square < freedom + 5 * np.sqrt(2 * freedom)  # five standard deviations


def test_all_orders_of_three_are_equally_likely() -> None:
    drawn = [tuple(sample_indices(3, epoch * 3, 3, 3).tolist()) for epoch in range(6000)]
    counts = np.array([drawn.count(order) for order in set(drawn)])
    assert len(counts) == 6
    assert ((counts - 1000) ** 2 / 1000).sum() < 5 + 5 * np.sqrt(10)


def test_neighbouring_samples_are_not_neighbours_in_the_text() -> None:
    n = 100_000
    order = sample_indices(11, 0, n, n)
    correlation = np.corrcoef(order[:-1], order[1:])[0, 1]
    assert abs(correlation) < 5 / np.sqrt(n)


def test_index_outside_the_range_is_an_error() -> None:
    with pytest.raises(IndexError):
        permute(5, 5, epoch_key(0, 0))
