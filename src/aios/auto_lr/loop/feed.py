"""Any iterable of batches, or a DataLoader, as numbered batches: with look-ahead, epochs, and a position to resume at.

A search trains on batches ahead and takes that back; the run then meets the same batches again. So batches need
numbers, and drawing one early must not change what is drawn or trained later.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch.utils.data.dataloader import _BaseDataLoaderIter

from aios.auto_lr.loop.random_state import HostState, host_state, seed_host, set_host_state
from aios.auto_lr.ranges import Range, check_number
from aios.errors import shown

Batch = TypeVar("Batch")
_EPOCH_SEEDS = 1_000_003
"""Keeps the random numbers of neighbouring seeds' epochs apart."""


class Steered(Protocol):
    """What `BatchFeed.batches` asks of an `AutoLR`."""

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""

    @property
    def batch(self) -> int:
        """Number of the next batch to train on."""


class BatchFeed(Generic[Batch]):
    """`feed[i]` is batch number i, counted from 0 over all epochs; the iterable begins anew when it ends.

    A batch stays in memory from when it is first asked for until `release`, which `batches` calls. Everything random
    in the iterable (a DataLoader's shuffling, augmentation in this process) draws from a stream of the feed's own,
    begun anew from `seed` in each epoch: it depends on the number of the batch alone, and the training's own random
    numbers (dropout) are left untouched. A sampler with `set_epoch` is told the epoch.

    Raises IndexError for a batch that was released, ValueError for an iterable without a batch and for what cannot be
    iterated again and again: a generator, or `iter(loader)`.
    """

    def __init__(self, source: Iterable[Batch], seed: int = 0) -> None:
        _check_source(source)
        self._source, self._seed = source, seed
        self._epoch = -1
        self._begins: deque[tuple[int, int, Any]] = deque()  # (number of its first batch, epoch, generator's state)
        self._first = 0  # number of the oldest batch that is kept
        self._kept: deque[Batch] = deque()
        self._drawing: Iterator[Batch] | None = None
        self._stream: HostState | None = None

    @property
    def epoch(self) -> int:
        """Of the oldest batch that is kept, counted from 0."""
        return self._begins[0][1] if self._begins else self._epoch + 1

    def __getitem__(self, number: int) -> Batch:
        if number < self._first:
            raise IndexError(f"batch {number} was released; the oldest one left is {self._first}")
        while number >= self._first + len(self._kept):
            self._draw()
        return self._kept[number - self._first]

    def release(self, number: int) -> None:
        """Forget the batches before `number`: training is past them."""
        while self._first < number:
            if not self._kept:
                self._draw()
            self._kept.popleft()
            self._first += 1
        while len(self._begins) > 1 and self._begins[1][0] <= self._first:
            self._begins.popleft()

    def batches(self, auto: Steered, *, micro_batches: int = 1) -> Iterator[Batch]:
        """The batches to train on until `auto` is finished, `micro_batches` of them for each of its steps.

        Raises ValueError where the next one is asked for although its step was not told to `auto`, or told too early.
        """
        check_number("micro_batches", micro_batches, Range(1), whole=True)
        return self._batches(auto, micro_batches)

    def _batches(self, auto: Steered, micro_batches: int) -> Iterator[Batch]:
        while not auto.finished:
            step = auto.batch
            self.release(step * micro_batches)
            for seen in range(1, micro_batches + 1):
                yield self[step * micro_batches + seen - 1]
                told = auto.batch != step  # it moves on with every step, made or passed, and never back
                if told and seen < micro_batches:
                    raise ValueError(
                        f"auto.step was called after {seen} of {micro_batches} micro-batches: call it once, after all"
                    )
            if not told:
                raise ValueError(
                    f"no step was made of batch {step}: call auto.step after each one; to accumulate, take "
                    "feed.batches(auto, micro_batches=k) and call it after each k; to leave one out, call "
                    "auto.before_step() and auto.pass_step() in its place"
                )

    def state_dict(self) -> dict[str, Any]:
        """Where the oldest batch that is kept lies, as plain values."""
        unbegun = (self._first, self._epoch + 1, self._generator_state())
        first, epoch, generator = self._begins[0] if self._begins else unbegun
        return {"number": self._first, "epoch": epoch, "drawn": self._first - first, "generator": generator}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; the batches of that epoch before it are drawn again and dropped."""
        self._kept.clear()
        self._begins.clear()
        self._first, self._epoch = state["number"] - state["drawn"], state["epoch"] - 1
        self._drawing = None
        saved = state["generator"] if isinstance(state["generator"], list) else [state["generator"]]
        for generator, was in zip(generators_in(self._source), saved, strict=False):  # None: it was given none
            if was is not None:
                generator.set_state(was)
        self.release(state["number"])

    def _draw(self) -> None:
        """Take one more batch from the source, of the next epoch where this one is over."""
        for _ in range(2):
            with self._own_random_numbers():
                if self._drawing is None:
                    self._drawing = self._begin_epoch()
                try:
                    self._kept.append(next(self._drawing))
                    return
                except StopIteration:
                    self._drawing = None
        if self._first or self._kept:
            raise ValueError(_once(self._source))
        raise ValueError("the source of the batches is empty: it gave none in a whole epoch")

    def _begin_epoch(self) -> Iterator[Batch]:
        self._epoch += 1
        self._begins.append((self._first + len(self._kept), self._epoch, self._generator_state()))
        seed_host(self._seed * _EPOCH_SEEDS + self._epoch)
        for sampler in parts_of(self._source)[1:]:
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(self._epoch)
        return iter(self._source)

    @contextmanager
    def _own_random_numbers(self) -> Iterator[None]:
        """Draw from the feed's stream of random numbers in the block, and leave the training's as it was."""
        outside = host_state()
        if self._stream is not None:
            set_host_state(self._stream)
        try:
            yield
        finally:
            self._stream = host_state()
            set_host_state(outside)

    def _generator_state(self) -> Any:
        """Of the source's own generator; of several a list, None where it was given none."""
        states = [generator.get_state() for generator in generators_in(self._source)]
        return states if len(states) > 1 else next(iter(states), None)


def _check_source(source: Any) -> None:
    """Raise ValueError unless `source` can be iterated, as far as is known again and again."""
    if not (hasattr(source, "__iter__") or hasattr(source, "__getitem__")):
        raise ValueError(
            f"source = {shown(source)} is not allowed: must be a DataLoader or another iterable that begins anew"
        )
    # One whose class has an `__iter__` of its own may begin anew there; those of the language never do.
    if not isinstance(source, Iterator):
        return
    if isinstance(source, _BaseDataLoaderIter) or not inspect.isfunction(type(source).__iter__):
        raise ValueError(_once(source))


def _once(source: Any) -> str:
    return (
        f"the {type(source).__name__} can be iterated only once: hand over the DataLoader itself, a list, or an object "
        "whose __iter__ begins anew"
    )


def parts_of(loader: Any) -> list[Any]:
    """A DataLoader and its samplers, one inside another, each once."""
    parts = [loader]
    for part in parts:  # the list grows in the loop
        inner = [getattr(part, name, None) for name in ("sampler", "batch_sampler")]
        parts += [each for each in inner if each is not None and all(each is not known for known in parts)]
    return parts


def generators_in(loader: Any) -> list[torch.Generator]:
    """The sources of random numbers that a DataLoader and its samplers were given, each once."""
    names = ("generator", "synchronized_generator")  # the second is Accelerate's
    given = [getattr(part, name, None) for part in parts_of(loader) for name in names]
    return list({id(one): one for one in given if isinstance(one, torch.Generator)}.values())
