"""Streams that are looked at ahead, and those that might lose batches by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer

from aios.integrations.look_ahead import begins_anew
from aios.integrations.transformers import AutoLRCallback
from integrations.tiny_trainers import StopAt, Windows, as_if_trained, gpt2, make_trainer


class Stream(IterableDataset[Any]):
    """Whatever `rows` hands out."""

    def __init__(self, rows: Callable[[], Iterator[Any]]) -> None:
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return self.rows()


class Lines(IterableDataset[Any]):
    """Reads on from the handle that it has opened once."""

    def __init__(self, path: Path) -> None:
        self.handle = path.open()

    def __iter__(self) -> Iterator[Any]:
        for line in self.handle:
            yield Windows()[int(line)]


class ParsedLines(Lines):
    def __iter__(self) -> Iterator[Any]:
        return (Windows()[int(line)] for line in self.handle)


class Said(IterableDataset[Any]):
    """Keeps a position of its own, and says so."""

    begins_anew = False

    def __init__(self) -> None:
        self.position = 0

    def __iter__(self) -> Iterator[int]:
        while self.position < 8:
            self.position += 1
            yield self.position


class Reader:
    def __init__(self, path: Path) -> None:
        self.handle = path.open()


class Read(IterableDataset[Any]):
    """Yields what its reader reads."""

    def __init__(self, path: Path) -> None:
        self.reader = Reader(path)

    def __iter__(self) -> Iterator[Any]:
        for line in self.reader.handle:
            yield Windows()[int(line)]


class Within(IterableDataset[Any]):
    """Yields what another one reads."""

    def __init__(self, path: Path) -> None:
        self.parts = [Lines(path)]

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def generated() -> Iterator[int]:
    yield from range(8)


def drawn_from(rows: Iterator[Any]) -> Iterator[Any]:
    yield from rows


@pytest.mark.parametrize(
    ("rows", "anew"),
    [
        (lambda shared: iter(range(8)), True),
        (lambda shared: iter([1, 2]), True),
        (lambda shared: (2 * i for i in range(8)), True),
        (lambda shared: (2 * i for i in (j + 1 for j in range(8))), True),
        (lambda shared: shared, False),
        (lambda shared: (2 * i for i in shared), False),
        (lambda shared: map(str, shared), False),
        (lambda shared: generated(), True),
        (lambda shared: drawn_from(shared), False),
        (lambda shared: drawn_from(iter([1, 2])), True),
    ],
)
def test_only_what_is_known_to_begin_anew_is_looked_at_ahead(rows: Any, anew: bool) -> None:
    shared = iter(range(8))
    assert begins_anew(DataLoader(Stream(lambda: rows(shared)))) is anew
    assert next(shared) == 0  # nothing was drawn to find out


def test_hugging_faces_streams_begin_anew() -> None:
    assert begins_anew(DataLoader(datasets.IterableDataset.from_generator(generated)))


@pytest.mark.parametrize("kind", [Lines, ParsedLines, Within, Read])
def test_the_training_meets_all_that_a_handle_gives(tmp_path: Path, kind: Callable[[Path], Any]) -> None:
    met: list[int] = []

    class Meets(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            met.append(inputs["input_ids"].tolist())
            return super().training_step(model, inputs, *rest)

    lines = tmp_path / "lines.txt"
    lines.write_text("\n".join(map(str, range(250))))
    trainer = make_trainer(tmp_path, as_if_trained(gpt2()), kind(lines), kind=Meets, max_steps=330)
    AutoLRCallback.attach(trainer)
    trainer.add_callback(StopAt(3, save=False))
    trainer.train()
    first = [Windows()[i]["input_ids"].tolist() for i in range(8)]
    assert met[0] + met[1] == first


def test_what_a_dataset_says_of_itself_counts() -> None:
    assert not begins_anew(DataLoader(Said()))


def test_a_sampler_that_is_an_iterator_draws_but_once() -> None:
    rows = list(range(6))
    assert begins_anew(DataLoader(rows, sampler=[1, 2]))
    assert not begins_anew(DataLoader(rows, sampler=iter([1, 2])))
    assert not begins_anew(DataLoader(rows, batch_sampler=iter([[1], [2]])))
