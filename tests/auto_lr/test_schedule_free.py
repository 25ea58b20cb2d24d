"""Schedule-Free keeps averages in the weights' place while it is in eval mode, as for each save."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from aios.auto_lr import AutoLR
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import classifier, fingerprint
from auto_lr.searches import of

schedulefree = pytest.importorskip("schedulefree")


def adamw(model: nn.Module) -> Any:
    return schedulefree.AdamWScheduleFree(model.parameters(), lr=1e-3)


def wrapped(model: nn.Module) -> Any:
    return schedulefree.ScheduleFreeWrapper(torch.optim.SGD(model.parameters(), lr=1e-2))


def run(every: int, nan_from: int | None = None) -> tuple[float, list[dict[str, Any]]]:
    """The last loss of a run that is saved every so many steps, and what it told."""
    model, forward = classifier()
    optimizer, events = adamw(model), list[dict[str, Any]]()
    auto = AutoLR(model, optimizer, 400, log_fn=events.append)
    optimizer.train()
    auto.search(forward)
    bad = itertools.repeat(1.0) if nan_from is None else itertools.chain([1.0] * nan_from, [float("nan")] * 20)
    numbers = itertools.chain(bad, itertools.repeat(1.0))
    while not auto.finished:
        loss = forward(auto.batch) * next(numbers)
        loss.backward()
        auto.step(loss)
        if auto.step_count % every == 0:
            optimizer.eval()
            auto.keep_snapshot()
            assert not any(group["train_mode"] for group in optimizer.param_groups)
            optimizer.train()
    return float(loss.detach()), events


@pytest.mark.parametrize("every", [16, 30, 60])
def test_a_climb_that_was_saved_goes_back_to_weights_that_can_be_trained(every: int) -> None:
    end, events = run(every)
    assert of(events, "adaptive_lr_climb")
    assert end < 1.0


def test_a_rewind_to_a_save_goes_on_training() -> None:
    end, events = run(60, nan_from=210)
    assert "rewind" in [event["rung"] for event in of(events, "adaptive_lr_trouble")]
    assert end < 1.0


@pytest.mark.parametrize("make", [adamw, wrapped])
@pytest.mark.parametrize("saved_in", ["train", "eval"])
def test_a_copy_comes_back_in_the_mode_of_now(make: Any, saved_in: str) -> None:
    model, forward = classifier()
    optimizer = make(model)

    def trained(steps: int) -> None:
        optimizer.train()
        for batch in range(steps):
            forward(batch).backward()
            optimizer.step()
            optimizer.zero_grad()

    trained(5)
    seen = {}
    for mode in ("eval", "train"):
        getattr(optimizer, mode)()
        seen[mode] = [p.detach().clone() for p in model.parameters()]
    getattr(optimizer, saved_in)()
    snapshot, exact = Snapshot(model, optimizer), fingerprint(model, optimizer)
    for mode in ("train", "eval", saved_in):
        trained(3)
        getattr(optimizer, mode)()
        snapshot.restore()
        for now, then in zip(model.parameters(), seen[mode], strict=True):
            torch.testing.assert_close(now.detach(), then)
    assert fingerprint(model, optimizer) == exact
