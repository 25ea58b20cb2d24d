"""Numbers of bytes and seconds in words: the unit changes where the rounded number does."""

from __future__ import annotations

import pytest

from aios.quantities import show_bytes, show_duration


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1 kB"), (1234567, "1.23 MB"), (41_000_000, "41 MB"),
        (999_600, "1 MB"), (999_999_999, "1 GB"), (500_400_000, "500 MB"), (384 * 10**12, "384 TB"),
        (1 << 60, "1,152,922 TB"),
    ],
)  # fmt: skip
def test_bytes_have_three_digits_and_the_unit_that_fits_them(count: int, words: str) -> None:
    assert show_bytes(count) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min"), (200.0, "3 min 20 s"), (3599.7, "1 h"), (3840.0, "1 h 04 min"),
        (7205.0, "2 h"), (360_060.0, "100 h 01 min"),
    ],
)  # fmt: skip
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert show_duration(seconds) == words
