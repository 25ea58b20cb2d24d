"""A DataLoader as numbered batches: look-ahead, epochs, and an exact position to resume at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, WeightedRandomSampler

from aios.auto_lr import AutoLR, BatchFeed
from auto_lr.problems import adamw, fingerprint

ROWS, BATCH = 40, 8


def loader(generator: torch.Generator | None = None, **kwargs: Any) -> DataLoader[Any]:
    rows = torch.arange(ROWS, dtype=torch.float32).reshape(-1, 1)
    return DataLoader(TensorDataset(rows), batch_size=BATCH, shuffle=True, generator=generator, **kwargs)


def rows(batch: list[Tensor]) -> list[float]:
    return batch[0].flatten().tolist()


def test_every_epoch_holds_every_row_once_in_an_order_of_its_own() -> None:
    feed = BatchFeed(loader())
    per_epoch = ROWS // BATCH
    epochs = [[x for i in range(per_epoch) for x in rows(feed[e * per_epoch + i])] for e in range(3)]
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


@pytest.mark.parametrize("own_generator", [False, True])
@pytest.mark.parametrize("position", [0, 3, 5, 12])
def test_a_feed_gone_on_with_gives_the_same_batches(own_generator: bool, position: int) -> None:
    def fresh() -> BatchFeed[Any]:
        return BatchFeed(loader(torch.Generator().manual_seed(5) if own_generator else None))

    feed = fresh()
    assert rows(feed[position + 3])  # looked ahead
    feed.release(position)
    state = feed.state_dict()
    torch.rand(7)  # whatever training draws meanwhile
    resumed = fresh()
    resumed.load_state_dict(state)
    assert resumed.epoch == position // (ROWS // BATCH)
    for number in range(position, position + 12):
        assert rows(resumed[number]) == rows(feed[number])


def test_drawing_leaves_the_random_numbers_of_training_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    assert rows(BatchFeed(loader())[7])
    assert torch.equal(torch.rand(4), expected)


def test_a_released_batch_is_gone_and_says_so() -> None:
    feed = BatchFeed(loader())
    feed.release(4)
    with pytest.raises(IndexError, match="batch 3 was released; the oldest one left is 4"):
        feed[3]


def test_a_source_without_a_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        BatchFeed([])[0]


class Restarting:
    """An iterator of its own making that begins anew, as some loaders are."""

    def __iter__(self) -> Restarting:
        self.left = 3
        return self

    def __next__(self) -> int:
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return self.left


class Exhausted(Restarting):
    """One that does not."""

    left = 3

    def __iter__(self) -> Exhausted:
        return self


@pytest.mark.parametrize(
    "source",
    [lambda: iter(loader()), lambda: (number for number in range(3)), lambda: iter([1]), lambda: map(str, [1])],
    ids=["loader", "generator", "list", "map"],
)
def test_what_can_be_iterated_only_once_is_refused_at_once(source: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match=r"can be iterated only once: .* the DataLoader itself"):
        BatchFeed(source())


@pytest.mark.parametrize("source", [5, None, object()])
def test_what_cannot_be_iterated_is_refused_at_once(source: Any) -> None:
    with pytest.raises(ValueError, match=r"is not allowed: must be a DataLoader or another iterable"):
        BatchFeed(source)


def test_an_iterator_that_begins_anew_is_taken_and_one_that_does_not_is_named() -> None:
    feed = BatchFeed(Restarting())
    assert [feed[number] for number in range(6)] == [2, 1, 0, 2, 1, 0]
    feed = BatchFeed(Exhausted())
    with pytest.raises(ValueError, match=r"^the Exhausted can be iterated only once"):
        feed[3]


def linear_run(steps: int = 30) -> tuple[nn.Module, AutoLR]:
    model = nn.Linear(1, 1)
    return model, AutoLR(model, adamw(model), steps)


def told(auto: AutoLR, model: nn.Module, batch: list[Tensor]) -> None:
    loss = model(batch[0]).square().mean()
    loss.backward()
    auto.step(loss)


def test_micro_batches_come_in_their_numbers_each_once_as_a_search_counts_them() -> None:
    model, auto = linear_run(100)
    feed, expected, seen, looked = BatchFeed(loader()), BatchFeed(loader()), [], list[int]()
    auto.search(lambda i: (looked.append(i), model(feed[i][0]).square().mean())[1], micro_batches=4)
    for count, batch in enumerate(feed.batches(auto, micro_batches=4), 1):
        seen.append(rows(batch))
        loss = model(batch[0]).square().mean()
        (loss / 4).backward()
        if count % 4 == 0:
            auto.step(loss)
    assert looked == [0, 1, 2, 3]
    assert seen == [rows(expected[number]) for number in range(4 * 100)]


def test_asking_for_the_next_batch_without_a_step_is_refused_with_the_remedies() -> None:
    model, auto = linear_run()
    feed = BatchFeed(loader())
    batches = feed.batches(auto)
    told(auto, model, next(batches))
    next(batches)
    with pytest.raises(ValueError, match=r"no step was made of batch 1: .*micro_batches=k.*pass_step") as caught:
        next(batches)
    assert len(str(caught.value)) < 300


def test_a_step_before_its_last_micro_batch_is_refused() -> None:
    model, auto = linear_run()
    batches = BatchFeed(loader()).batches(auto, micro_batches=4)
    next(batches)
    told(auto, model, next(batches))
    with pytest.raises(ValueError, match=r"auto\.step was called after 2 of 4 micro-batches"):
        next(batches)


@pytest.mark.parametrize("number", [0, 2.5, True, "4"])
def test_a_number_of_micro_batches_that_is_none_is_refused(number: Any) -> None:
    with pytest.raises(ValueError, match=r"micro_batches = .* is not allowed: must be a whole number >= 1"):
        BatchFeed(loader()).batches(linear_run()[1], micro_batches=number)


def test_a_batch_that_is_left_out_counts_as_a_step() -> None:
    model, auto = linear_run()
    trained = []
    for batch in BatchFeed(loader()).batches(auto):
        if auto.batch % 3 == 0:
            auto.before_step()
            auto.pass_step()
            continue
        trained.append(auto.batch)
        told(auto, model, batch)
    assert trained == [number for number in range(30) if number % 3]


def test_a_loop_begun_again_after_an_interruption_meets_its_batch_again() -> None:
    model, auto = linear_run()
    feed, seen = BatchFeed(loader()), []
    for interrupted in (True, False):
        for batch in feed.batches(auto):
            seen.append(rows(batch))
            if interrupted and auto.batch == 5:
                break
            told(auto, model, batch)
    assert len(seen) == 31
    assert seen[5] == seen[6]


def test_any_iterable_will_do_and_begins_anew() -> None:
    assert BatchFeed(TensorDataset(torch.arange(3)))[4][0] == 1  # it has no __iter__
    feed = BatchFeed(["a", "b", "c"])
    assert [feed[i] for i in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


class Sampled(torch.utils.data.Sampler[int]):
    """Tells which epochs it was told."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __iter__(self) -> Iterator[int]:
        return iter(range(ROWS))

    def __len__(self) -> int:
        return ROWS


def weighted(generator: torch.Generator | None) -> WeightedRandomSampler:
    return WeightedRandomSampler([1.0] * ROWS, ROWS, generator=generator)


SAMPLED: dict[str, Callable[[torch.Generator], dict[str, Any]]] = {
    "sampler": lambda own: {"sampler": weighted(own), "batch_size": BATCH},
    "sampler of batches": lambda own: {"batch_sampler": BatchSampler(weighted(own), BATCH, False)},
    "sampler and loader": lambda own: {"sampler": weighted(own), "generator": torch.Generator(), "batch_size": BATCH},
}


@pytest.mark.parametrize("kind", SAMPLED)
def test_a_sampler_with_random_numbers_of_its_own_goes_on_where_it_was(kind: str) -> None:
    def fresh() -> BatchFeed[Any]:
        rows_of = TensorDataset(torch.arange(ROWS, dtype=torch.float32).reshape(-1, 1))
        return BatchFeed(DataLoader(rows_of, **SAMPLED[kind](torch.Generator().manual_seed(5))))

    feed, resumed = fresh(), fresh()
    feed.release(12)
    resumed.load_state_dict(feed.state_dict())
    for number in range(12, 24):
        assert rows(resumed[number]) == rows(feed[number])


def test_a_sampler_within_one_of_batches_is_told_the_epoch() -> None:
    sampler = Sampled()
    rows_of = TensorDataset(torch.arange(ROWS, dtype=torch.float32).reshape(-1, 1))
    feed = BatchFeed(DataLoader(rows_of, batch_sampler=BatchSampler(sampler, BATCH, False)))
    assert rows(feed[2 * ROWS // BATCH])
    assert sampler.epochs == [0, 1, 2]


def test_a_sampler_is_told_the_epoch() -> None:
    sampler = Sampled()
    rows_of = TensorDataset(torch.arange(ROWS, dtype=torch.float32).reshape(-1, 1))
    feed = BatchFeed(DataLoader(rows_of, batch_size=BATCH, sampler=sampler))
    assert rows(feed[2 * ROWS // BATCH])
    assert sampler.epochs == [0, 1, 2]


def regression() -> tuple[nn.Module, DataLoader[Any]]:
    torch.manual_seed(0)
    x = torch.randn(200, 8)
    data = TensorDataset(x, x.sin().sum(1, keepdim=True))
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Dropout(0.1), nn.Linear(32, 1))
    return model, DataLoader(data, batch_size=20, shuffle=True)


def test_a_data_loader_loop_saved_and_gone_on_with_ends_as_if_it_had_not_been() -> None:
    def start() -> Any:
        model, data = regression()
        optimizer = adamw(model)
        feed, auto = BatchFeed(data), AutoLR(model, optimizer, 300)

        def loss_of(batch: list[Tensor]) -> Tensor:
            return F.mse_loss(model(batch[0]), batch[1])

        return model, optimizer, feed, auto, loss_of

    def run(feed: BatchFeed[Any], auto: AutoLR, loss_of: Any, until: int) -> list[float]:
        losses = []
        auto.pause_at(until)
        for batch in feed.batches(auto):
            loss = loss_of(batch)
            loss.backward()
            auto.step(loss)
            losses.append(float(loss.detach()))
        return losses

    model, optimizer, feed, auto, loss_of = start()
    auto.search(lambda i: loss_of(feed[i]))
    run(feed, auto, loss_of, 130)
    feed.release(auto.batch)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    moments = [optimizer.state_dict(), torch.get_rng_state(), auto.state_dict(), feed.state_dict()]
    moments[0] = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, Tensor) else v, moments[0])
    straight = run(feed, auto, loss_of, 300), fingerprint(model, optimizer)

    model, optimizer, feed, auto, loss_of = start()
    model.load_state_dict(weights)
    optimizer.load_state_dict(moments[0])
    auto.load_state_dict(moments[2])
    feed.load_state_dict(moments[3])
    torch.set_rng_state(moments[1])
    assert (run(feed, auto, loss_of, 300), fingerprint(model, optimizer)) == straight
    assert len(straight[0]) == 170
