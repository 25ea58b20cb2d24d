"""Which IterableDatasets can be taken to begin anew when they are iterated again, beside an iteration under way.

An `__iter__` that resumes a shared position would lose data to a second iterator; such a dataset sets
`begins_anew = False`. That it holds a handle, an iterator or a queue is seen without that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from inspect import getgeneratorlocals
from types import GeneratorType, ModuleType
from typing import Any

from torch import Tensor
from torch.utils.data import IterableDataset

_CONTAINERS: tuple[Iterable[Any], ...] = ([], (), range(0), {}, {}.values(), {}.items(), set())
_IN_MEMORY = tuple(type(iter(each)) for each in _CONTAINERS)
"""Iterators that draw from nothing but what they were made of."""
_DEEPEST = 3
"""So far down it is looked for what a dataset draws from: through a reader of its own, or datasets in a list."""


def begins_anew(dataset: IterableDataset[Any]) -> bool:
    """Whether a second iteration can be taken to begin anew: as the dataset's own `begins_anew` says, else of Hugging
    Face's, and where `__iter__` yields or hands out a new iterator over data in memory, unless the dataset holds
    something that is drawn from. Of other iterators nobody can tell.
    """
    whole = _unsharded(dataset)
    said = getattr(whole, "begins_anew", None)
    if said is not None or _is_hugging_faces(whole):
        return said is None or bool(said)
    return not _is_drawn_from(whole, _DEEPEST) and _are_apart(iter(whole), iter(whole))


def _is_drawn_from(value: Any, depth: int) -> bool:
    """Whether it is an iterator (such as an open file) or a queue, or holds one at most `depth` levels down."""
    if isinstance(value, Iterator) or hasattr(value, "get_nowait"):
        return True
    inner: Iterable[Any] = ()
    if isinstance(value, (list, tuple, set)):
        inner = value
    elif isinstance(value, dict):
        inner = value.values()
    elif not isinstance(value, (type, ModuleType, Tensor)):
        inner = getattr(value, "__dict__", {}).values()
    return depth > 0 and any(_is_drawn_from(each, depth - 1) for each in inner)


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
