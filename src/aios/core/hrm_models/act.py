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


def q_learning_loss(qs: list[Tensor], correct: list[Tensor], mask: Tensor) -> Tensor:
    """Half the sum of the binary cross-entropies of Q_halt and Q_continue (paper, section 2, ACT).

    Q_halt's target is whether the segment predicts the token correctly. Q_continue's is what continuing is
    worth: the better action at the next segment, or its Q_halt where that is the last one and halting the
    only action. The last segment has no continuation and no Q_continue term. Targets carry no gradient.
    Each term is the mean over masked-in tokens and over the segments that have it.

    `qs`: (batch, time, 2) fp32 logits per segment; `correct`: (batch, time) bool per segment.
    """
    last = len(qs) - 1
    halt = torch.stack([_bce(q[..., 0], hit.float(), mask) for q, hit in zip(qs, correct, strict=True)]).mean()
    if last == 0:
        return 0.5 * halt
    terms = []
    for step in range(last):
        following = qs[step + 1].detach()
        value = following[..., 0] if step + 1 == last else following.amax(-1)
        terms.append(_bce(qs[step][..., 1], value.sigmoid(), mask))
    return 0.5 * (halt + torch.stack(terms).mean())


def _bce(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    return masked_mean(F.binary_cross_entropy_with_logits(logits, targets, reduction="none"), mask)
