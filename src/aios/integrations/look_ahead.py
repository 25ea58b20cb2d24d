"""Batches that the training has not come to yet, numbered, drawn beside the training's own iteration."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import count
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset

from aios.auto_lr import BatchFeed
from aios.auto_lr.loop.feed import generators_in, parts_of
from aios.errors import UserError
from aios.integrations import streams


class Ahead(NamedTuple):
    """Where a look begins."""

    number: int
    """Of the training's next micro-batch."""
    loader: Any
    """The DataLoader whose samplers are drawn from."""
    batches: Generator[Any, None, None]
    """The micro-batches from there on, without end (see `epochs_from`)."""


class _Endless:
    """Batches without end, which nobody iterates a second time."""

    def __init__(self, batches: Iterator[Any]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self._batches


class LookAhead:
    """`ahead[i]` is micro-batch number i, counted as the training counts them, in a `with` block on it.

    Nothing that the training draws later changes: the look has random numbers of its own, and the end of the block
    restores the generators of the samplers. The next look begins where training stands then.
    """

    def __init__(self, begin: Callable[[], Ahead]) -> None:
        self._begin = begin
        self._ahead: Ahead | None = None
        self._feed: BatchFeed[Any] | None = None
        self._before: list[tuple[torch.Generator, torch.Tensor]] = []

    def __getitem__(self, number: int) -> Any:
        if self._ahead is None or self._feed is None:
            self._ahead = self._begin()
            self._before = [(generator, generator.get_state()) for generator in generators_of(self._ahead.loader)]
            self._feed = BatchFeed(_Endless(self._ahead.batches))
        return self._feed[number - self._ahead.number]

    def __enter__(self) -> LookAhead:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead is None:
            return
        self._ahead.batches.close()
        for generator, state in self._before:
            generator.set_state(state)
        self._ahead, self._feed, self._before = None, None, []


def epochs_from(first: int, open_epoch: Callable[[int], Iterable[Any]]) -> Generator[Any, None, None]:
    """The batches of epoch `first` and all after it; UserError where a whole epoch has none."""
    for epoch in count(first):
        loader, batch, whole = open_epoch(epoch), None, False
        try:
            for batch in loader:
                yield batch
            whole = True
        finally:
            if not whole and hasattr(loader, "end"):  # Accelerate keeps count of the loaders that are being iterated
                loader.end()
        if batch is None and epoch > first:  # nothing may be left of the first one
            raise UserError("the DataLoader gave no batch in a whole epoch: is the dataset smaller than a batch?")


def begins_anew(loader: Any) -> bool:
    """Whether iterating `loader` a second time leaves the training's iterator undisturbed.

    True for DataLoaders, and for several in a dict or list, unless a sampler is an iterator; for streams see `streams`.
    Any other source of batches is taken to be disturbed.
    """
    if isinstance(loader, (dict, list, tuple)):
        several = list(loader.values()) if isinstance(loader, dict) else loader
        return bool(several) and all(begins_anew(one) for one in several)
    if not isinstance(loader, DataLoader) or any(isinstance(sampler, Iterator) for sampler in parts_of(loader)[1:]):
        return False
    return not isinstance(loader.dataset, IterableDataset) or streams.begins_anew(loader.dataset)


def generators_of(loader: Any) -> list[torch.Generator]:
    """Those that a DataLoader and its samplers draw from, or several in a dict or list, each once."""
    several = loader.values() if isinstance(loader, dict) else loader
    if several is loader and not isinstance(loader, (list, tuple)):
        return generators_in(loader)
    found = [generator for one in several for generator in generators_of(one)]
    return list({id(generator): generator for generator in found}.values())
