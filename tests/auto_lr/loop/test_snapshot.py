"""A snapshot brings everything back bit for bit, again and again."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aios.auto_lr.loop.random_state import rng_state, set_rng_state
from aios.auto_lr.loop.snapshot import Snapshot
from auto_lr.problems import adamw, classifier, fingerprint, sgd, train_plainly


@pytest.mark.parametrize(
    "make", [adamw, sgd, lambda m: adamw(m, fused=True), lambda m: torch.optim.Adamax(m.parameters())]
)
@pytest.mark.parametrize("trained_before", [0, 4])
def test_weights_and_optimizer_come_back_bit_for_bit_twice(make: Any, trained_before: int) -> None:
    model, forward = classifier()
    optimizer = make(model)
    train_plainly(optimizer, forward, trained_before)
    snapshot, before = Snapshot(model, optimizer), fingerprint(model, optimizer)

    for _ in range(2):
        train_plainly(optimizer, forward, 5)
        assert fingerprint(model, optimizer) != before
        snapshot.restore()
        assert fingerprint(model, optimizer) == before


def test_training_after_a_restore_repeats_training_before_it() -> None:
    model, forward = classifier(dropout=0.3)
    optimizer = adamw(model)
    train_plainly(optimizer, forward, 3)
    snapshot = Snapshot(model, optimizer)

    first = train_plainly(optimizer, forward, 10)
    snapshot.restore()

    assert train_plainly(optimizer, forward, 10) == first


def test_an_empty_optimizer_state_is_empty_again_and_gradients_are_gone() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    snapshot = Snapshot(model, optimizer)
    train_plainly(optimizer, forward, 2)
    forward(0).backward()

    snapshot.restore()

    assert dict(optimizer.state) == {}
    assert all(p.grad is None for p in model.parameters())


def test_buffers_and_settings_of_param_groups_come_back() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(
        [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[2].parameters(), "weight_decay": 0.5}]
    )
    snapshot, before = Snapshot(model, optimizer), fingerprint(model, optimizer)

    train_plainly(optimizer, lambda i: model(torch.randn(8, 4)).square().mean(), 3)
    for group in optimizer.param_groups:
        group.update(lr=7.0, weight_decay=7.0, betas=(0.7, 0.7))
    snapshot.restore()

    assert int(model[1].num_batches_tracked) == 0
    assert fingerprint(model, optimizer) == before


def test_a_buffer_that_its_first_batch_has_given_a_size_is_as_before() -> None:
    """As those of quantization observers."""
    model, fresh = nn.Linear(4, 4), torch.empty(0)
    model.register_buffer("lowest", fresh)
    snapshot = Snapshot(model, torch.optim.AdamW(model.parameters()))
    for _ in range(2):
        fresh.resize_(4).fill_(1.0)
        snapshot.restore()
        assert fresh.shape == (0,)


def test_a_tensor_learning_rate_keeps_its_identity() -> None:
    model, forward = classifier()
    lr = torch.tensor(1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, foreach=False)
    snapshot = Snapshot(model, optimizer)

    lr.fill_(1.0)
    train_plainly(optimizer, forward, 1)
    snapshot.restore()

    assert optimizer.param_groups[0]["lr"] is lr
    assert float(lr) == pytest.approx(1e-3)


def test_random_numbers_repeat_after_a_restore() -> None:
    model, _ = classifier()
    snapshot = Snapshot(model, adamw(model))

    def draw() -> tuple[list[float], float, float]:
        return torch.randn(5).tolist(), random.random(), random.gauss(0, 1), float(np.random.rand())

    first = draw()
    snapshot.restore()

    assert draw() == first


def test_the_random_state_survives_saving_with_weights_only(tmp_path: Any) -> None:
    torch.save(rng_state(), tmp_path / "rng.pt")
    first = torch.randn(3).tolist(), random.random()

    set_rng_state(torch.load(tmp_path / "rng.pt", weights_only=True))

    assert (torch.randn(3).tolist(), random.random()) == first


def test_the_loss_scale_comes_back() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)

    def train(steps: int) -> None:
        for batch in range(steps):
            scaler.scale(forward(batch)).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()

    train(1)
    snapshot, before = Snapshot(model, optimizer, scaler), (scaler.state_dict(), fingerprint(model, optimizer))
    train(5)
    assert scaler.get_scale() > 1024
    snapshot.restore()

    assert (scaler.state_dict(), fingerprint(model, optimizer)) == before


def test_bytes_count_weights_and_both_moments() -> None:
    model, forward = classifier()
    optimizer = adamw(model)
    weights = sum(p.numel() * 4 for p in model.parameters())
    assert Snapshot(model, optimizer).bytes == weights

    train_plainly(optimizer, forward, 1)

    counters = 4 * len(list(model.parameters()))
    assert Snapshot(model, optimizer).bytes == 3 * weights + counters


def inference(shape: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.randn(shape)


@pytest.mark.parametrize(
    "make", [lambda: torch.randn(1, 16).expand(32, 16), lambda: inference((32, 16))], ids=["expanded", "inference"]
)
@pytest.mark.parametrize("frozen_weight", [False, True])
def test_what_cannot_be_written_in_place_is_left_as_it_is(make: Any, frozen_weight: bool) -> None:
    """Statistics or features computed once, which training without us never touches."""
    model, forward = classifier()
    shift = make()
    if frozen_weight:
        model.register_parameter("shift", nn.Parameter(shift, requires_grad=False))
    else:
        model.register_buffer("shift", shift)
    optimizer, before = adamw(model), shift.tolist()
    snapshot, weights = Snapshot(model, optimizer), [p.tolist() for p in model.parameters()]
    assert snapshot.bytes == 4 * sum(p.numel() for p in model.parameters() if p.requires_grad)
    train_plainly(optimizer, forward, 3)
    model.shift = nn.Parameter(torch.zeros(1), requires_grad=False) if frozen_weight else torch.zeros(1)
    snapshot.restore()
    if not frozen_weight:
        assert model.shift is shift
        assert [p.tolist() for p in model.parameters()] == weights
    assert shift.tolist() == before
