"""One curve of a run in bounded memory: buckets of steps whose width doubles when there would be too many."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_BUCKETS = 4096
"""Buckets of one series at most; a power of two."""
_FIRST_BUCKETS = 64

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A curve to draw: one entry per bucket that holds anything, in step order; all arrays have the same length."""

    steps: Floats
    """Mean step of the bucket's values."""
    mean: Floats
    """Mean of the finite values; NaN where there are none."""
    low: Floats
    """Least finite value; NaN where there are none."""
    high: Floats
    """Largest finite value; NaN where there are none."""
    non_finite: NDArray[np.int64]
    """How many values were NaN or infinite."""

    def __len__(self) -> int:
        return len(self.steps)

    def lowest(self, after: float) -> tuple[float, float] | None:
        """(step, value) of the least finite value at a step above `after`; None where there is none."""
        lows = np.where((self.steps > after) & np.isfinite(self.low), self.low, np.inf)
        at = int(lows.argmin()) if len(lows) else -1
        return (float(self.steps[at]), float(lows[at])) if at >= 0 and lows[at] < np.inf else None

    def within(self, low: float, high: float) -> Series:
        """The entries from step `low` to `high`, and one more on either side, so that lines reach the edge."""
        first = max(int(np.searchsorted(self.steps, low)) - 1, 0)
        part = slice(first, int(np.searchsorted(self.steps, high, side="right")) + 1)
        return Series(self.steps[part], self.mean[part], self.low[part], self.high[part], self.non_finite[part])

    def thinned(self, points: int) -> Series:
        """At most `points` entries, by merging neighbours; minimum and maximum stay exact, means are of means."""
        if len(self) <= points:
            return self
        starts = np.arange(0, len(self), -(-len(self) // points))
        finite = np.isfinite(self.mean)
        counts = np.add.reduceat(finite.astype(np.int64), starts)
        sums = np.add.reduceat(np.where(finite, self.mean, 0.0), starts)
        sizes = np.diff(np.append(starts, len(self)))
        return Series(
            np.add.reduceat(self.steps, starts) / sizes,
            np.where(counts > 0, sums / np.maximum(counts, 1), np.nan),
            np.fmin.reduceat(self.low, starts),
            np.fmax.reduceat(self.high, starts),
            np.add.reduceat(self.non_finite, starts),
        )


EMPTY = Series(np.empty(0), np.empty(0), np.empty(0), np.empty(0), np.empty(0, dtype=np.int64))


class BucketSeries:
    """Values by step. Bucket `i` holds the steps `i * width` to `(i + 1) * width - 1`; `width` is a power of two.

    While buckets are one step wide a repeated step replaces the older value; wider ones hold all they were given.
    Minimum and maximum are exact at any width. How the values are split over calls of `add` makes no difference.
    """

    def __init__(self, max_buckets: int = MAX_BUCKETS) -> None:
        self._max_buckets = max_buckets
        self.width = 1
        """Steps per bucket."""
        self._make(min(_FIRST_BUCKETS, max_buckets))

    def add(self, steps: list[int], values: list[float]) -> None:
        """Add `values[i]` at `steps[i]` >= 0; in any order, NaN and infinities welcome."""
        first = 0
        for at, step in enumerate(steps):
            if step >= self.width * self._max_buckets:
                self._add_within(steps[first:at], values[first:at])
                first = at
                while step >= self.width * self._max_buckets:
                    self._double()
        self._add_within(steps[first:], values[first:])

    def drop_after(self, step: int) -> None:
        """Forget the buckets that reach beyond `step`: whole buckets, so that nothing of what was beyond remains."""
        self._clear((step + 1) // self.width)

    def series(self) -> Series:
        """The curve as it stands."""
        held = np.flatnonzero(self._counts + self._bad)
        count, bad = self._counts[held], self._bad[held]
        nothing = count == 0
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.where(nothing, np.nan, self._sums[held] / count)
        low = np.where(nothing, np.nan, self._lows[held])
        high = np.where(nothing, np.nan, self._highs[held])
        # Rounding may carry a sum of equal values past them.
        return Series(self._step_sums[held] / (count + bad), np.clip(mean, low, high), low, high, bad)

    @property
    def last(self) -> float | None:
        """Mean of the last bucket that holds a finite value."""
        held = np.flatnonzero(self._counts)
        return float(self._sums[held[-1]] / self._counts[held[-1]]) if len(held) else None

    def _make(self, buckets: int) -> None:
        self._counts = np.zeros(buckets, dtype=np.int64)
        self._bad = np.zeros(buckets, dtype=np.int64)
        self._step_sums, self._sums = np.zeros(buckets), np.zeros(buckets)
        self._lows, self._highs = np.full(buckets, np.inf), np.full(buckets, -np.inf)

    def _clear(self, first: int) -> None:
        for zeroed in (self._counts, self._bad, self._step_sums, self._sums):
            zeroed[first:] = 0
        self._lows[first:], self._highs[first:] = np.inf, -np.inf

    def _add_within(self, steps: list[int], values: list[float]) -> None:
        """Add values none of which needs wider buckets."""
        if not steps:
            return
        at_step, value = np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)
        bucket = at_step // self.width
        self._grow(int(bucket.max()) + 1)
        if self.width == 1:
            self._replace(bucket, at_step, value)
            return
        finite = np.isfinite(value)
        np.add.at(self._step_sums, bucket, at_step)  # one by one, in order: no split changes a sum's rounding
        np.add.at(self._bad, bucket[~finite], 1)
        bucket, value = bucket[finite], value[finite]
        np.add.at(self._counts, bucket, 1)
        np.add.at(self._sums, bucket, value)
        np.minimum.at(self._lows, bucket, value)
        np.maximum.at(self._highs, bucket, value)

    def _replace(self, bucket: NDArray[np.int64], steps: NDArray[np.int64], values: Floats) -> None:
        """One step per bucket: of values for the same one the last stays."""
        newest = len(bucket) - 1 - np.unique(bucket[::-1], return_index=True)[1]
        bucket, values = bucket[newest], values[newest]
        finite = np.isfinite(values)
        self._step_sums[bucket] = steps[newest]
        self._counts[bucket], self._bad[bucket] = finite, ~finite
        self._sums[bucket] = np.where(finite, values, 0.0)
        self._lows[bucket] = np.where(finite, values, np.inf)
        self._highs[bucket] = np.where(finite, values, -np.inf)

    def _grow(self, buckets: int) -> None:
        missing = min(self._max_buckets, max(buckets, 2 * len(self._counts))) - len(self._counts)
        if buckets <= len(self._counts):
            return
        for name, fill in (("_counts", 0), ("_bad", 0), ("_step_sums", 0), ("_sums", 0)):
            setattr(self, name, np.pad(getattr(self, name), (0, missing), constant_values=fill))
        self._lows = np.pad(self._lows, (0, missing), constant_values=np.inf)
        self._highs = np.pad(self._highs, (0, missing), constant_values=-np.inf)

    def _double(self) -> None:
        """Merge neighbours: half as many buckets, each twice as wide."""
        self._grow(self._max_buckets)
        old = [self._counts, self._bad, self._step_sums, self._sums, self._lows, self._highs]
        half = self._max_buckets // 2
        self.width *= 2
        self._make(self._max_buckets)
        self._counts[:half], self._bad[:half], self._step_sums[:half], self._sums[:half] = (
            values.reshape(half, 2).sum(axis=1) for values in old[:4]
        )
        self._lows[:half] = old[4].reshape(half, 2).min(axis=1)
        self._highs[:half] = old[5].reshape(half, 2).max(axis=1)
