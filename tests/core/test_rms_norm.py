"""RMSNorm against torch's own: values, both derivatives, types, extremes, and where torch's is used."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models.rms_norm import rms_norm

EPS = 1e-5


def reference(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), None, EPS)


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def value_and_gradient(norm: Callable[[Tensor], Tensor], x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    y = norm(x)
    return y.detach(), torch.autograd.grad((y * weight).sum(), x)[0]


def ours(x: Tensor) -> Tensor:
    return rms_norm(x, EPS)


@pytest.mark.parametrize("shape", [(8,), (3, 1), (2, 5, 128), (4, 512), (0, 16)])
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1.0, 1e6])
def test_values_and_gradients_are_those_of_double_precision(shape: tuple[int, ...], scale: float) -> None:
    x, weight = randn(*shape) * scale, randn(*shape, seed=1)
    y, gradient = value_and_gradient(ours, x, weight)
    exact_y, exact_gradient = value_and_gradient(reference, x.double(), weight.double())
    torch.testing.assert_close(y.double(), exact_y, rtol=1e-6, atol=0)
    # A gradient is a difference of terms of the size of the factor that the row is divided by.
    factor = (exact_y / x.double()).abs().amax().item() if x.numel() else 0.0
    torch.testing.assert_close(gradient.double(), exact_gradient, rtol=0, atol=1e-6 * factor)


def test_without_gradient_the_values_are_the_same() -> None:
    x = randn(4, 7, 96).requires_grad_()
    with torch.no_grad():
        plain = ours(x)
    assert not plain.requires_grad
    torch.testing.assert_close(ours(x).detach(), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_of_other_types_the_statistics_are_in_fp32_at_least_and_the_result_of_the_type(dtype: torch.dtype) -> None:
    x, weight = randn(6, 64, dtype=dtype) * 3, randn(6, 64, seed=1, dtype=dtype)
    found, expected = value_and_gradient(ours, x, weight), value_and_gradient(reference, x, weight)
    wide = value_and_gradient(reference, x.double(), weight.double())
    for result, theirs, exact in zip(found, expected, wide, strict=True):
        assert result.dtype == theirs.dtype == dtype
        assert (result - exact).abs().max() <= 1.01 * (theirs - exact).abs().max() + 1e-12


def test_under_autocast_it_is_as_without() -> None:
    for x in (randn(6, 64), randn(6, 64, dtype=torch.bfloat16)):
        weight = torch.ones_like(x)
        plain = value_and_gradient(ours, x, weight)
        with torch.autocast("cpu", torch.bfloat16):
            cast = value_and_gradient(ours, x, weight)
        for a, b in zip(cast, plain, strict=True):
            assert a.dtype == x.dtype
            torch.testing.assert_close(a, b, rtol=0, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-42, 1e-30, 1e18, 3e38])
def test_the_smallest_and_the_largest_numbers_are_no_worse_than_torchs(size: float) -> None:
    x, weight = torch.full((2, 32), size), randn(2, 32, seed=1)
    found, theirs = value_and_gradient(ours, x, weight), value_and_gradient(reference, x, weight)
    exact = value_and_gradient(reference, x.double(), weight.double())
    for result, other, wanted in zip(found, theirs, exact, strict=True):
        assert result.isfinite().all()
        error, allowed = (result - wanted).abs().max(), (other - wanted).abs().max()
        assert allowed.isnan() or error <= allowed + 1e-6 * wanted.abs().max()


def test_a_row_that_is_no_number_stays_one_and_spoils_no_other() -> None:
    x = randn(3, 8)
    x[1, 2] = torch.nan
    y, gradient = value_and_gradient(ours, x, torch.ones_like(x))
    for result in (y, gradient):
        assert result[1].isnan().all()
        assert result[[0, 2]].isfinite().all()


def test_the_gradient_can_be_differentiated() -> None:
    x = randn(2, 3, 6, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(ours, x)
    assert torch.autograd.gradgradcheck(ours, x)


def test_its_memory_is_the_result_and_a_number_for_each_row() -> None:
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    x = randn(5, 40).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = ours(x)
    assert sorted(kept.values()) == [5, 200]
    assert y.untyped_storage().data_ptr() in kept


def test_torch_func_differentiates_it_row_by_row() -> None:
    x = randn(3, 8)
    rows = torch.func.vmap(torch.func.grad(lambda row: (ours(row) * row.cos()).sum()))(x)
    x.requires_grad_()
    torch.testing.assert_close(rows, torch.autograd.grad((ours(x) * x.cos()).sum(), x)[0])


def test_torch_compile_takes_it_whole() -> None:
    x, weight = randn(4, 16), randn(4, 16, seed=1)
    whole = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for found, expected in zip(value_and_gradient(whole, x, weight), value_and_gradient(ours, x, weight), strict=True):
        torch.testing.assert_close(found, expected)
