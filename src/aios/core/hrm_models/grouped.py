"""Matrix products of many rows with few matrices: each row with the matrix of its group."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_ALIGNED_BYTES = 16
"""What torch's kernel asks of the length of a row."""

_TYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Those that torch's kernel takes."""


def grouped_product(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    """`rows` (n, inputs), sorted by group, times the matrix of their group in `matrices` (groups, inputs, outputs).

    Group g has the rows from `ends[g - 1]` to `ends[g]` (int32), which stay on the device: nothing waits for them
    where torch has a kernel for the type. Torch builds without it, other types, and rows of a length that it does not
    take, are multiplied group by group.
    """
    known = rows.dtype in _TYPES and hasattr(F, "grouped_mm")
    if not known or _misaligned(rows.shape[1], rows) or _misaligned(matrices.shape[2], rows):
        return _product_by_product(rows, matrices, ends)
    if torch.compiler.is_compiling() and rows.dtype != torch.bfloat16:
        return _untraced(rows, matrices, ends)
    return _in_one(rows, matrices, ends)


def _in_one(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    result: Tensor = F.grouped_mm(rows, matrices, offs=ends)
    return result


_untraced = torch.compiler.disable(_in_one)
"""For torch.compile, whose tracer (torch 2.13) knows the product in bf16 only."""


def _misaligned(length: int, rows: Tensor) -> bool:
    return length * rows.element_size() % _ALIGNED_BYTES > 0


def _product_by_product(rows: Tensor, matrices: Tensor, ends: Tensor) -> Tensor:
    parts = rows.tensor_split(ends[:-1].cpu().long())
    return torch.cat([part @ matrix for part, matrix in zip(parts, matrices, strict=True)])
