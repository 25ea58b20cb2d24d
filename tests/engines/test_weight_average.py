"""The average of the weights: its formula, its turn in force, its file, and its way back with a snapshot."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from aios.engines.weight_average import WeightAverage


def trained_step(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 1.0


def test_decay_grows_to_what_was_asked_for() -> None:
    model = nn.Linear(2, 1)
    average, expected = WeightAverage(model, 0.3), model.weight.detach().clone()
    for count in range(8):
        trained_step(model)
        average.update()
        decay = min(0.3, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * model.weight.detach()
    with average.in_force():
        torch.testing.assert_close(model.weight.detach(), expected)


def test_own_weights_are_back_to_the_last_bit_even_after_an_error() -> None:
    model = nn.Linear(3, 3)
    average = WeightAverage(model, 0.9)
    trained_step(model)
    average.update()
    before = [p.detach().clone() for p in model.parameters()]
    try:
        with average.in_force():
            assert not torch.equal(model.weight, before[0])
            raise InterruptedError
    except InterruptedError:
        pass
    assert all(torch.equal(p, kept) for p, kept in zip(model.parameters(), before, strict=True))


def test_what_is_saved_goes_on_the_same(tmp_path: Path) -> None:
    model = nn.Linear(3, 3)
    average = WeightAverage(model, 0.9)
    for _ in range(3):
        trained_step(model)
        average.update()
    average.save(tmp_path)
    torch.manual_seed(9)
    other = nn.Linear(3, 3)
    again = WeightAverage(other, 0.9)
    again.load(tmp_path)
    for each, its in ((model, average), (other, again)):
        trained_step(each)
        its.update()
    assert torch.equal(model.weight, other.weight)
    assert all(torch.equal(a, b) for a, b in zip(average.tensors, again.tensors, strict=True))


def test_averages_of_small_types_are_kept_in_fp32() -> None:
    model = nn.Linear(4, 4).to(torch.bfloat16)
    average = WeightAverage(model, 0.999)
    assert {tensor.dtype for tensor in average.tensors} == {torch.float32}
    with average.in_force():
        assert model.weight.dtype == torch.bfloat16
