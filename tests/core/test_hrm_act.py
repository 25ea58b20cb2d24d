"""ACT: per-token halting, and what the Q head learns from."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMForCausalLM
from aios.core.hrm_models.act import q_learning_losses, used_segments
from aios.core.hrm_models.supervision import IGNORE_INDEX, score

SEGMENTS = 3


def set_q_bias(model: HRMForCausalLM, halt: float, resume: float) -> None:
    with torch.no_grad():
        model.q_head.bias.copy_(torch.tensor([halt, resume]))


def logits_by_segment(model: HRMForCausalLM, tokens: Tensor) -> list[Tensor]:
    """Logits after 1, 2, ... segments, from models that may run so many and never halt earlier."""
    bias, weight = model.q_head.bias.clone(), model.q_head.weight.clone()
    torch.nn.init.zeros_(model.q_head.weight)
    set_q_bias(model, 0.0, 1.0)
    found = []
    for steps in range(1, SEGMENTS + 1):
        model.config.halt_max_steps = steps
        found.append(model(tokens).logits)
    with torch.no_grad():
        model.q_head.bias.copy_(bias)
        model.q_head.weight.copy_(weight)
    return found


@pytest.mark.parametrize(("halt", "resume", "used"), [(1.0, 0.0, 1), (0.0, 1.0, 3), (0.0, 0.0, 3)])
def test_q_head_decides_how_many_segments_are_used(
    make_model: Any, tokens: Tensor, halt: float, resume: float, used: int
) -> None:
    model = make_model(halt_max_steps=SEGMENTS).eval()
    expected = logits_by_segment(model, tokens)[used - 1]
    set_q_bias(model, halt, resume)
    output = model(tokens)
    assert output.used_segments.item() == used
    assert torch.equal(output.logits, expected)
    assert model.train()(tokens, labels=tokens).used_segments.item() == used


def test_each_token_keeps_the_logits_of_its_own_halting_segment(make_model: Any, tokens: Tensor) -> None:
    model = make_model(halt_max_steps=SEGMENTS).eval()
    torch.nn.init.normal_(model.q_head.weight, std=0.3)
    set_q_bias(model, 0.0, 1.0)
    by_segment = logits_by_segment(model, tokens)
    output = model(tokens)
    matches = torch.stack([(output.logits == logits).all(-1) for logits in by_segment])
    assert (matches.sum(0) == 1).all(), "every token must have the logits of exactly one segment"
    assert matches.flatten(1).any(1).all(), "the case is only mixed when every segment halts some token"
    halted_at = matches.long().argmax(0) + 1
    assert output.used_segments.item() == pytest.approx(halted_at.float().mean().item())


def test_cross_entropy_in_training_ignores_the_q_head(make_model: Any, tokens: Tensor) -> None:
    model = make_model(halt_max_steps=SEGMENTS)
    values = []
    for halt, resume in ((5.0, -5.0), (-5.0, 5.0)):
        set_q_bias(model, halt, resume)
        values.append(model(tokens, labels=tokens).ce)
    assert torch.equal(values[0], values[1])


def test_training_cross_entropy_is_the_mean_over_all_segments(make_model: Any, tokens: Tensor) -> None:
    model = make_model(halt_max_steps=SEGMENTS)
    ce = model(tokens, labels=tokens).ce
    model.eval()
    per_segment = [
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        for logits in logits_by_segment(model, tokens)
    ]
    torch.testing.assert_close(ce, torch.stack(per_segment).mean())


def test_auxiliary_losses_enter_with_their_coefficients(make_model: Any, tokens: Tensor) -> None:
    output = make_model(use_moe=True, q_loss_coef=0.5, moe_aux_coef=0.25)(tokens, labels=tokens)
    torch.testing.assert_close(output.loss, output.ce + 0.5 * output.q_loss + 0.25 * output.lb_loss)


def test_q_targets_are_correctness_and_the_value_of_the_next_segment() -> None:
    """One token, three segments, against the sums of the paper written out."""
    logits = [(0.3, -0.2), (-1.0, 0.7), (0.5, 2.0)]
    correct = [0.0, 1.0, 1.0]

    def bce(logit: float, target: float) -> float:
        p = torch.tensor(logit).sigmoid().item()
        return -(target * torch.tensor(p).log().item() + (1 - target) * torch.tensor(1 - p).log().item())

    def sigmoid(logit: float) -> float:
        return torch.tensor(logit).sigmoid().item()

    halt = sum(bce(q[0], hit) for q, hit in zip(logits, correct, strict=True)) / 3
    # After segment 1 the better action of segment 2; after segment 2 only halting is left.
    resume = (bce(-0.2, sigmoid(0.7)) + bce(0.7, sigmoid(0.5))) / 2
    qs = [torch.tensor([[q, (9.0, -9.0)]]) for q in logits]
    hits = [torch.tensor([[bool(hit), False]]) for hit in correct]
    loss = sum(q_learning_losses(qs, hits, torch.tensor([[True, False]])))
    assert loss.item() == pytest.approx(0.5 * (halt + resume), rel=1e-5)


def test_q_targets_carry_no_gradient() -> None:
    qs = [torch.ones(1, 1, 2, requires_grad=True) for _ in range(2)]
    hits = [torch.ones(1, 1, dtype=torch.bool)] * 2
    sum(q_learning_losses(qs, hits, torch.ones(1, 1, dtype=torch.bool))).backward()
    last = qs[1].grad
    assert last is not None
    assert last[..., 0].item() == pytest.approx(0.5 * 0.5 * (1 / (1 + math.exp(-1)) - 1))  # its own halt term only
    assert last[..., 1].item() == 0.0


def test_single_segment_learns_halting_only() -> None:
    q = torch.zeros(1, 1, 2, requires_grad=True)
    yes = torch.ones(1, 1, dtype=torch.bool)
    loss = sum(q_learning_losses([q], [yes], yes))
    assert loss.item() == pytest.approx(0.5 * 0.6931, abs=1e-4)


def test_used_segments_counts_real_tokens_only() -> None:
    stop, go = (1.0, 0.0), (0.0, 1.0)
    qs = [torch.tensor([[stop, go, stop]]), torch.tensor([[go, go, go]])]
    assert used_segments(qs, torch.tensor([[True, True, False]])).item() == 1.5


def test_a_prediction_is_right_where_no_token_beats_the_target() -> None:
    logits = torch.randn(2, 9, 11, generator=torch.Generator().manual_seed(0))
    targets = logits.argmax(-1)
    targets[0, :3] = (targets[0, :3] + 1) % 11
    targets[1, 4] = IGNORE_INDEX
    _, _, correct = score(torch.nn.Identity(), logits, targets)
    torch.testing.assert_close(correct, logits.argmax(-1) == targets)
    tied = score(torch.nn.Identity(), torch.tensor([[[2.0, 1.0, 2.0]]]), torch.tensor([[2]]))[2]
    assert tied.tolist() == [[True]]
