"""Weights that nobody trains: copied once, brought back all the same."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.frozen import FrozenCopies, FrozenCopy, checksum, frozen_in, restore_frozen
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import adamw, classifier

KINDS = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.complex64, torch.int8, torch.bool]


def with_frozen_half() -> tuple[nn.Module, Any]:
    model, forward = classifier()
    first = next(model.parameters())
    first.requires_grad_(False)
    return model, forward


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_checksum_changes_with_any_bit(kind: torch.dtype) -> None:
    tensor = torch.arange(1, 1000).to(kind)
    before = checksum(tensor)
    assert checksum(tensor.clone()) == before
    tensor[500] = 0
    assert checksum(tensor) != before


def test_what_its_checksum_says_has_changed_is_brought_back() -> None:
    """As it is on an accelerator, where the copy lies elsewhere."""
    tensors = [torch.arange(10.0), torch.arange(5.0)]
    copies = [FrozenCopy(tensor, tensor.clone(), checksum(tensor)) for tensor in tensors]
    tensors[1][3] = 7.0
    assert [bool(one.holds()) for one in copies] == [True, False]
    restore_frozen(copies)
    assert torch.equal(tensors[1], torch.arange(5.0))


def test_snapshots_share_the_copy_of_what_stays_as_it_is() -> None:
    model, _ = with_frozen_half()
    copies = FrozenCopies()
    one, other = copies.of(frozen_in(model)), copies.of(frozen_in(model))
    assert [a.copy.data_ptr() for a in one] == [b.copy.data_ptr() for b in other]
    assert len(one) == 1


def moved_in_place(teacher: Tensor) -> None:
    teacher.mul_(0.9)


def moved_through_data(teacher: Tensor) -> None:
    teacher.data.mul_(0.9)  # torch does not count such a change


def replaced(teacher: Tensor) -> None:
    teacher.data = teacher.data * 0.9


@pytest.mark.parametrize("move", [moved_in_place, moved_through_data, replaced])
def test_a_teacher_that_moves_comes_back_to_where_each_snapshot_saw_it(move: Any) -> None:
    model, _ = with_frozen_half()
    teacher, optimizer, copies = next(model.parameters()), adamw(model), FrozenCopies()
    seen, snapshots = [], []
    for _ in range(3):
        snapshots.append(Snapshot(model, optimizer, frozen=copies))
        seen.append(teacher.clone())
        with torch.no_grad():
            move(teacher)
    for snapshot, was in zip([*snapshots, *reversed(snapshots)], [*seen, *reversed(seen)], strict=True):
        snapshot.restore()
        assert torch.equal(teacher, was)


def test_weights_that_are_unfrozen_later_come_back_from_before() -> None:
    model, forward = with_frozen_half()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, snapshot = copy.deepcopy(model.state_dict()), Snapshot(model, optimizer)
    model.requires_grad_(True)
    forward(0).backward()
    optimizer.step()
    assert not torch.equal(next(model.parameters()), next(iter(before.values())))
    snapshot.restore()
    assert all(torch.equal(own, before[name]) for name, own in model.state_dict().items())


def test_nan_among_them_is_no_change() -> None:
    model, _ = with_frozen_half()
    with torch.no_grad():
        next(model.parameters())[0] = float("nan")
    copies = FrozenCopies()
    assert copies.of(frozen_in(model))[0] is copies.of(frozen_in(model))[0]


def test_a_climb_beside_frozen_weights_holds_one_copy_of_them() -> None:
    body, head = nn.Linear(1000, 1000), nn.Linear(1000, 2)
    body.requires_grad_(False)
    model = nn.Sequential(body, nn.ReLU(), head)
    optimizer = adamw(head)
    auto = AutoLR(model, optimizer, 200)
    auto.search()
    held = set[int]()
    for batch in range(60):
        x = torch.randn(16, 1000, generator=torch.Generator().manual_seed(batch))
        loss = nn.functional.cross_entropy(model(x), (x[:, 0] > 0).long())
        loss.backward()
        auto.step(loss)
        held |= {tensor.data_ptr() for tensor in large_tensors(auto)}
    assert len(held - {body.weight.data_ptr()}) == 1


def large_tensors(root: object) -> list[Tensor]:
    """Those of a million entries that `root` leads to."""
    found, seen, waiting = list[Tensor](), set[int](), [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, Tensor):
            found += [thing] if thing.numel() == 1_000_000 else []
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif isinstance(thing, (list, tuple, set)):
            waiting += thing
        elif hasattr(thing, "__dict__") and not isinstance(thing, type):
            waiting += vars(thing).values()
    return found
