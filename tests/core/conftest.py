"""Small HRM models for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from aios.core.hrm_models import HRMConfig, HRMForCausalLM

MakeModel = Callable[..., HRMForCausalLM]

SMALL: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 32,
    "h_layers": 1,
    "l_layers": 2,
    "h_cycles": 2,
    "l_cycles": 2,
    "num_heads": 4,
    "expansion": 2.0,
    "halt_max_steps": 3,
    "max_position_embeddings": 32,
}


@pytest.fixture
def make_model() -> MakeModel:
    """Build a seeded model of a few thousand parameters; keyword arguments override its config."""

    def make(**overrides: Any) -> HRMForCausalLM:
        torch.manual_seed(0)
        return HRMForCausalLM(HRMConfig(**{**SMALL, **overrides}))

    return make


@pytest.fixture
def tokens() -> torch.Tensor:
    """A batch of 2 sequences of 12 random tokens."""
    return torch.randint(0, SMALL["vocab_size"], (2, 12), generator=torch.Generator().manual_seed(1))
