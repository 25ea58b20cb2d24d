"""A backward pass for each ACT segment: the gradient of the whole one, in the memory of one segment."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aios.core.hrm_models import HRMForCausalLM
from segment_activations import by_segment, peak_bytes

MOE = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2}
NUMBERS = ("loss", "ce", "q_loss", "lb_loss", "used_segments")


def gradients(model: HRMForCausalLM) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def make_awake(make_model: Any, **overrides: Any) -> HRMForCausalLM:
    """A model whose Q head wants different things of different tokens."""
    model: HRMForCausalLM = make_model(**overrides)
    torch.nn.init.normal_(model.q_head.weight)
    return model


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("kind", [{}, MOE], ids=["dense", "moe"])
@pytest.mark.parametrize("segments", [2, 4])
def test_gradient_and_numbers_are_those_of_the_whole_loss(
    make_model: Any, tokens: Tensor, kind: dict[str, Any], segments: int, checkpointing: bool
) -> None:
    model = make_awake(make_model, halt_max_steps=segments, **kind).double()
    if checkpointing:
        model.gradient_checkpointing_enable()
    mask = torch.ones_like(tokens)
    mask[0, :5] = 0
    whole = model(tokens, attention_mask=mask, labels=tokens)
    whole.loss.backward()
    expected = gradients(model)
    losses, outputs = [], []
    for loss, numbers in model.segment_losses(tokens, tokens, mask):
        loss.backward()
        losses.append(loss.detach())
        outputs.append(numbers)
    output = outputs.pop()
    assert outputs == [None] * (segments - 1)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.stack(losses).sum(), whole.loss.detach())
    assert output is not None
    assert output.logits is None
    for name in NUMBERS:
        seen, expected_number = getattr(output, name), getattr(whole, name)
        assert (seen is None) == (expected_number is None)
        assert seen is None or torch.equal(seen, expected_number.detach()), name


def test_one_segment_is_the_whole_to_the_last_bit(make_model: Any, tokens: Tensor) -> None:
    model = make_awake(make_model, halt_max_steps=1, **MOE)
    model(tokens, labels=tokens).loss.backward()
    expected = gradients(model)
    [(loss, _)] = model.segment_losses(tokens, tokens)
    loss.backward()
    assert all(torch.equal(gradient, expected[name]) for name, gradient in gradients(model).items())


def test_what_is_run_ahead_under_autocast_cuts_no_weight_off(make_model: Any, tokens: Tensor) -> None:
    model = make_awake(make_model)
    for loss, _ in model.segment_losses(tokens, tokens):
        loss.backward()
    exact = gradients(model)
    losses = model.segment_losses(tokens, tokens)
    for _ in range(model.config.halt_max_steps):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, _ = next(losses)
        loss.backward()
    for name, gradient in gradients(model).items():
        similarity = torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0)
        assert similarity > 0.9, name


def test_activations_do_not_grow_with_the_segments() -> None:
    shape = {"hidden_size": 32, "num_heads": 2}
    one, eight = (peak_bytes(by_segment, segments, **shape) for segments in (1, 8))
    assert eight <= 1.3 * one
