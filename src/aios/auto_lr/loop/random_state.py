"""The random number generators of this process: their state, kept and brought back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

RngState = dict[str, Any]
ProcessState = tuple[RngState, Any]
HostState = tuple[Any, ...]


def rng_state() -> RngState:
    """The state of torch's generators (CUDA's too) and Python's, as values that load with `weights_only=True`.

    NumPy's is not among them: checkpoints have never held it.
    """
    version, numbers, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [version, list(numbers), gauss],
    }


def set_rng_state(state: RngState) -> None:
    """Restore what `rng_state` returned; CUDA generators only where there are as many devices as before."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def process_state() -> ProcessState:
    """The state of all generators of this process: those of `rng_state`, and NumPy's."""
    return rng_state(), np.random.get_state()


def set_process_state(state: ProcessState) -> None:
    """Restore what `process_state` returned."""
    rng, of_numpy = state
    set_rng_state(rng)
    np.random.set_state(of_numpy)


@contextmanager
def random_numbers_kept() -> Iterator[None]:
    """Leave all generators of this process where they were before the block."""
    before = process_state()
    try:
        yield
    finally:
        set_process_state(before)


def host_state() -> HostState:
    """The state of the generators that a dataset may draw from: torch's on the CPU, Python's and NumPy's."""
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def set_host_state(state: HostState) -> None:
    """Restore what `host_state` returned."""
    of_torch, of_python, of_numpy = state
    torch.set_rng_state(of_torch)
    random.setstate(of_python)
    np.random.set_state(of_numpy)


def seed_host(number: int) -> None:
    """Start the generators of `host_state` from `number`."""
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def seed(number: int) -> None:
    """Start every generator that a training step may use from `number`."""
    torch.manual_seed(number)  # all CUDA devices as well
    seed_host(number)
