"""Robust spread: of the last numbers of a stream, at a cost that does not show in a training step; around a course; and
what the lowest of many owes to chance."""

import math
import statistics
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


def scatter(numbers: Sequence[float]) -> float:
    """Robust standard deviation around a smooth course, by second differences: trends drop out. 0 for fewer than three.

    Of independent numbers the second difference has six times the variance.
    """
    bends = [abs(a - 2 * b + c) for a, b, c in zip(numbers, numbers[1:], numbers[2:], strict=False)]
    return MAD_TO_SIGMA * statistics.median(bends) / math.sqrt(6) if bends else 0.0


def low_by_chance(n: float) -> float:
    """Standard deviations by which the lowest of about `n` independent normal numbers lies below their mean."""
    return math.sqrt(2 * math.log(max(1.0, n)))


class RobustWindow:
    """The last `size` numbers, kept sorted as well: median and robust sigma in O(log size)."""

    def __init__(self, size: int, values: Iterable[float] = ()) -> None:
        self.values: deque[float] = deque(values, maxlen=size)
        self._sorted = sorted(self.values)

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values)

    def add(self, value: float) -> None:
        """Take a finite number; the oldest one leaves a full window."""
        if len(self.values) == self.values.maxlen:
            del self._sorted[bisect_left(self._sorted, self.values[0])]
        self.values.append(value)
        insort(self._sorted, value)

    def median(self) -> float:
        """Median of a window that is not empty."""
        n, ordered = len(self._sorted), self._sorted
        return ordered[n // 2] if n % 2 else ordered[n // 2 - 1] / 2 + ordered[n // 2] / 2

    def sigma(self) -> float:
        """1.4826 x the median absolute deviation, for a window that is not empty.

        The n // 2 + 1 numbers nearest to the median stand side by side in sorted order: a binary search finds
        where they begin, and the largest deviations among them are at their ends.
        """
        ordered, centre, n = self._sorted, self.median(), len(self._sorted)
        low, high, nearest = 0, n - n // 2 - 1, n // 2 + 1
        while low < high:
            middle = (low + high) // 2
            if centre - ordered[middle] > ordered[middle + nearest] - centre:
                low = middle + 1
            else:
                high = middle
        left, right = abs(centre - ordered[low]), abs(ordered[low + nearest - 1] - centre)
        largest = max(left, right)
        if n % 2:
            return MAD_TO_SIGMA * largest
        inner = ordered[low + 1] if left > right else ordered[low + nearest - 2]
        return MAD_TO_SIGMA * (largest / 2 + max(min(left, right), abs(inner - centre)) / 2)
