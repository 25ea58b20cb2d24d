"""Adaptive computation time: when a token halts, and what the Q head learns.

Halting is decided per TOKEN. The paper halts whole sequences from one pooled state; in a causal language
model that decision would see later tokens and so leak them into the logits of earlier ones. Here position
t's Q values read z_H at t, which attends to positions <= t only, so its logits stay causal.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def wants_halt(q: Tensor) -> Tensor:
    """True where halting is valued strictly above continuing; q (..., 2) holds their two logits."""
    return q[..., 0] > q[..., 1]


def used_segments(qs: list[Tensor], counted: Tensor) -> Tensor:
    """Mean over the counted tokens of the segment (1-based) at which the Q head halts; fp32 scalar.

    `qs` holds one (batch, time, 2) tensor per segment. A token that never wants to halt uses all of them.
    """
    with torch.no_grad():
        running = torch.ones_like(counted, dtype=torch.bool)
        used = torch.zeros_like(counted, dtype=torch.float32)
        for q in qs:
            used = used + running
            running = running & ~wants_halt(q)
        return masked_mean(used, counted)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of values where mask is True (0 when it never is), without reading the mask on the host."""
    return values.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def q_learning_losses(qs: list[Tensor], correct: list[Tensor], mask: Tensor) -> list[Tensor]:
    """By segment, parts of half the sum of the binary cross-entropies of Q_halt and Q_continue (paper, section 2, ACT).

    Q_halt's target is whether the segment predicts the token correctly. Q_continue's is what continuing is
    worth: the better action at the next segment, or its Q_halt where that is the last one and halting the
    only action. The last segment has no continuation and no Q_continue term. Targets carry no gradient.
    Each term is the mean over masked-in tokens and over the segments that have it.

    `qs`: (batch, time, 2) fp32 logits per segment; `correct`: (batch, time) bool per segment.
    """
    following: list[Tensor | None] = [*(q.detach() for q in qs[1:]), None]
    return [q_loss_part(q, correct[i], following[i], i, len(qs), mask) for i, q in enumerate(qs)]


def q_loss_part(q: Tensor, correct: Tensor, following: Tensor | None, number: int, count: int, mask: Tensor) -> Tensor:
    """What segment `number` (from 0) of `count` adds to the loss of the Q head, see `q_learning_losses`.

    `following` are the logits after the next segment; None leaves the value of continuing out, as the last one does.
    """
    part = _bce(q[..., 0], correct.float(), mask) / count
    if following is not None:
        value = following[..., 0] if number + 2 == count else following.amax(-1)
        part = part + _bce(q[..., 1], value.sigmoid(), mask) / (count - 1)
    return 0.5 * part


def _bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    return masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), mask)
