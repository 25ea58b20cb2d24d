"""Where a run computes, and in which number types: the estimate of a run and the run itself go by the same rule."""

from __future__ import annotations

import pytest
import torch

from aios.engines.device import choose_precision
from aios.settings.config import TrainingConfig
from aios.settings.fits import size_of_run


@pytest.mark.parametrize("kind", ["cpu", "cuda", "mps"])
@pytest.mark.parametrize("given", [{}, {"amp": True}, {"amp": False}, {"model_dtype": "fp16"}, {"model_dtype": "bf16"}])
def test_a_run_computes_in_16_bits_exactly_where_its_estimate_says_so(
    kind: str, given: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    config = TrainingConfig(**given)  # type: ignore[arg-type]

    precision = choose_precision(config, torch.device(kind))

    computed = precision.autocast or precision.weights
    assert size_of_run(config, 2048, kind).compute_bytes == computed.itemsize
