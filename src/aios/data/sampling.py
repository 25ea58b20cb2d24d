"""Sampling order as a pure function of seed and position: a keyed pseudo-random permutation, nothing stored.

A balanced Feistel network (Luby and Rackoff 1988) permutes the smallest 2^(2b) >= n; cycle walking (Black and
Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002) restricts it to range(n). The round function is
the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Good statistics, not secrecy, is all that is
asked of it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt64Array = npt.NDArray[np.uint64]

ROUNDS = 8
"""Four rounds suffice in theory for wide halves; ours can be one bit wide, so take more."""

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def mix64(value: int) -> int:
    """SplitMix64's finaliser: a bijection of 64-bit integers, every input bit reaching every output bit."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK
    return value ^ (value >> 31)


def epoch_key(seed: int, epoch: int) -> int:
    """64-bit key of the permutation of one epoch; any integers."""
    return mix64(mix64(seed + _GOLDEN) + (epoch + 1) * _GOLDEN)


def permute(index: int, n: int, key: int) -> int:
    """Image of `index` under the permutation of range(n) that `key` selects: the slow, readable reference.

    Raises IndexError unless 0 <= index < n.
    """
    if not 0 <= index < n:
        raise IndexError(f"index {index} of a permutation of range({n})")
    half_bits = _half_bits(n)
    image = _feistel(index, half_bits, key)
    while image >= n:  # ends: the cycle through index holds index itself, which is below n
        image = _feistel(image, half_bits, key)
    return image


def _feistel(value: int, half_bits: int, key: int) -> int:
    left, right = value >> half_bits, value & ((1 << half_bits) - 1)
    for number in range(1, ROUNDS + 1):
        scrambled = mix64(right + mix64(key + number * _GOLDEN)) >> (64 - half_bits)
        left, right = right, left ^ scrambled
    return left << half_bits | right


def _half_bits(n: int) -> int:
    return max(1, ((n - 1).bit_length() + 1) // 2)


def sample_index(seed: int, position: int, n: int) -> int:
    """Which of n samples comes at `position` of an endless run; every n positions are a permutation."""
    epoch, offset = divmod(position, n)
    return permute(offset, n, epoch_key(seed, epoch))


def sample_indices(seed: int, first: int, count: int, n: int) -> npt.NDArray[np.int64]:
    """`sample_index` for positions first .. first + count - 1 at once, shape [count]."""
    positions = np.arange(first, first + count, dtype=np.uint64)
    epochs, offsets = np.divmod(positions, np.uint64(n))
    keys = _mix64_array((epochs + np.uint64(1)) * np.uint64(_GOLDEN) + np.uint64(mix64(seed + _GOLDEN)))
    return _permute_array(offsets, n, keys).astype(np.int64)


def _mix64_array(values: UInt64Array) -> UInt64Array:
    """`mix64` of each element; NumPy arrays wrap modulo 2^64 without a warning."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX_1)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX_2)
    return values ^ (values >> np.uint64(31))


def _permute_array(indices: UInt64Array, n: int, keys: UInt64Array) -> UInt64Array:
    half_bits = _half_bits(n)
    numbers = np.arange(1, ROUNDS + 1, dtype=np.uint64)[:, None]
    round_keys = _mix64_array(keys[None, :] + numbers * np.uint64(_GOLDEN))  # [ROUNDS, count]
    images = _feistel_array(indices, half_bits, round_keys)
    while len(outside := np.flatnonzero(images >= n)):
        images[outside] = _feistel_array(images[outside], half_bits, round_keys[:, outside])
    return images


def _feistel_array(values: UInt64Array, half_bits: int, round_keys: UInt64Array) -> UInt64Array:
    left, right = values >> np.uint64(half_bits), values & np.uint64((1 << half_bits) - 1)
    for round_key in round_keys:
        left, right = right, left ^ (_mix64_array(right + round_key) >> np.uint64(64 - half_bits))
    return left << np.uint64(half_bits) | right
