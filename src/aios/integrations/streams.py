"""Which IterableDatasets begin anew when they are iterated again, beside an iteration that is under way.

One whose `__iter__` reads on from a handle, a queue or a counter of its own gives the second iteration what the first
one would have met; that cannot be seen from outside. So this takes the few kinds that are known to be harmless.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from inspect import getgeneratorlocals
from types import GeneratorType
from typing import Any

from torch.utils.data import IterableDataset

_CONTAINERS: tuple[Iterable[Any], ...] = ([], (), range(0), {}, {}.values(), {}.items(), set())
_IN_MEMORY = tuple(type(iter(each)) for each in _CONTAINERS)
"""Iterators that draw from nothing but what they were made of."""


def begins_anew(dataset: IterableDataset[Any]) -> bool:
    """Whether a second iteration is known to begin anew: of Hugging Face's datasets, and where `__iter__` hands out a
    new iterator over data in memory, plain or in a generator expression.

    Not known it is of a generator function, of iterators of the author's own, and of all that hold an iterator.
    """
    whole = _unsharded(dataset)
    if _is_hugging_faces(whole):
        return True
    if any(isinstance(value, Iterator) for value in vars(whole).values()):
        return False
    return _are_apart(iter(whole), iter(whole))


def _is_hugging_faces(dataset: Any) -> bool:
    """Whether it is a `datasets.IterableDataset`, whose epochs all begin anew; that package is not loaded for it."""
    kind = getattr(sys.modules.get("datasets"), "IterableDataset", None)
    return kind is not None and isinstance(dataset, kind)


def _unsharded(dataset: Any) -> Any:
    """What Accelerate shares out among the workers."""
    return dataset.dataset if type(dataset).__name__ == "IterableDatasetShard" else dataset


def _are_apart(first: Any, second: Any) -> bool:
    """Whether two iterators of one dataset are known to share nothing that is drawn from."""
    if first is second:
        return False
    if not isinstance(first, GeneratorType):
        return isinstance(first, _IN_MEMORY)
    if first.gi_code.co_name != "<genexpr>":
        return False
    return _are_apart(getgeneratorlocals(first)[".0"], getgeneratorlocals(second)[".0"])
