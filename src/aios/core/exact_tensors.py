"""Tensor files that must hold a model's tensors: all of them, nothing else, in their shapes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from aios.errors import UserError

_NAMED = 3
"""How many tensors a sentence names at most."""
_TRAINED = (torch.float32, torch.bfloat16, torch.float16)
"""Types in which weights are kept; one may stand for another."""


def read_exactly(path: Path, wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in the safetensors file `path`, on the CPU; of `wanted` names, shapes and types count.

    Raises:
        UserError: when it cannot be read, or holds other tensors than those.
    """
    found = read_tensors(path)
    check_exact(found, wanted, path)
    return found


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors in a safetensors file, on the CPU.

    Raises:
        UserError: when it cannot be read.
    """
    if not os.path.isfile(path):  # a pipe would be waited for
        raise UserError(f"The weights in {path} cannot be read (it is no file that is there); choose others.")
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"The weights in {path} cannot be read ({error}); choose others.") from error
    return tensors


def check_exact(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], source: Path) -> None:
    """Check that what was `found` in `source` has the names, shapes and types of `wanted`, no more and no less.

    Raises:
        UserError: naming the first few that do not.
    """
    faults = [
        *_named("lacks", sorted(wanted.keys() - found.keys())),
        *_named("has besides", sorted(found.keys() - wanted.keys())),
    ]
    common = sorted(wanted.keys() & found.keys())
    faults += _named("has misshapen", [s for n in common if (s := _difference(n, found[n], wanted[n])) is not None])
    if faults:
        raise UserError(f"The weights in {source} are not those of this model: it {', '.join(faults)}; choose others.")


def _named(fault: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return [f"{fault} {', '.join(name[:160] for name in names[:_NAMED])}{more}"]


def _difference(name: str, found: Tensor, wanted: Tensor) -> str | None:
    if found.shape != wanted.shape:
        return f"{name} ({_size(found)} instead of {_size(wanted)})"
    if found.dtype != wanted.dtype and not (found.dtype in _TRAINED and wanted.dtype in _TRAINED):
        return f"{name} ({_kind(found)} instead of {_kind(wanted)})"
    return None


def _size(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape)) or "one number"


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
