"""Which IterableDatasets begin anew when they are iterated again, beside an iteration that is under way.

One whose `__iter__` reads on from a handle or an iterator that it holds gives the second iteration what the first one
would have met. That shows in what it holds, and in what its iterators begin with.
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
    """Whether a second iteration can be taken to begin anew: of Hugging Face's datasets, and where `__iter__` yields or
    hands out a new iterator over data in memory; never where the dataset, or one within it, holds an iterator or a
    handle. Of other iterators nobody can tell.
    """
    whole = _unsharded(dataset)
    if _is_hugging_faces(whole):
        return True
    return not _holds_iterator(whole, set()) and _are_apart(iter(whole), iter(whole))


def _holds_iterator(value: Any, seen: set[int]) -> bool:
    """Whether there is an iterator, as open files are, in a dataset, in one within it, or in containers of both."""
    if id(value) in seen:
        return False
    seen.add(id(value))
    inner: Iterable[Any] = ()
    if isinstance(value, Iterator):
        return True
    if isinstance(value, IterableDataset):
        inner = vars(value).values()
    elif isinstance(value, (list, tuple, set, dict)):
        inner = value.values() if isinstance(value, dict) else value
    return any(_holds_iterator(each, seen) for each in inner)


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
    begins, others = getgeneratorlocals(first), getgeneratorlocals(second)
    drawn = [(value, others[name]) for name, value in begins.items() if isinstance(value, Iterator)]
    return all(_are_apart(one, other) for one, other in drawn)
