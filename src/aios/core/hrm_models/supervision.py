"""Deep supervision: what each segment of a training step is to learn, and the numbers of the whole step.

The loss of a step is the sum of its segments' parts. As the carry between segments has no gradient (Wang et al. 2025,
section 2), each part can be differentiated by itself, and its activations dropped, before the next segment is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from transformers.modeling_outputs import CausalLMOutputWithPast

from aios.core.hrm_models.act import q_learning_losses, used_segments
from aios.core.hrm_models.configuration_hrm import HRMConfig

IGNORE_INDEX = -100
"""Label of the positions that carry no loss, as everywhere in transformers."""


@dataclass
class HRMOutput(CausalLMOutputWithPast):  # type: ignore[misc,unused-ignore]
    """Result of one forward; every entry here but `logits` is a scalar on the model's device, or None.

    The cache, where one is in use, is an `HRMCache` under the name that transformers has for it.
    """

    loss: Tensor | None = None
    """ce + q_loss_coef * q_loss + moe_aux_coef * lb_loss: what to call backward on."""
    logits: Tensor | None = None
    """(batch, time, vocab): of the last segment in training, of each token's halting segment otherwise."""
    ce: Tensor | None = None
    """Token-mean cross-entropy in nats, averaged over the segments; without auxiliary losses."""
    q_loss: Tensor | None = None
    """Loss of the Q head (training only)."""
    lb_loss: Tensor | None = None
    """Load-balancing loss, mean over all blocks run with gradient (training with experts only)."""
    used_segments: Tensor | None = None
    """Mean over the real tokens of the segment at which the Q head halts."""


@dataclass(frozen=True)
class Supervised:
    """What one segment has shown, with gradient where it was run with one."""

    ce: Tensor
    """Token-mean cross-entropy, nats."""
    correct: Tensor
    """(batch, time): whether no token is more likely than the right one."""
    q: Tensor
    """(batch, time, 2), fp32: the Q head's logits."""
    balance: Tensor | None
    """Load-balancing loss, mean over the blocks; None without experts."""

    def detached(self) -> Supervised:
        """The same without gradient."""
        balance = None if self.balance is None else self.balance.detach()
        return Supervised(self.ce.detach(), self.correct, self.q.detach(), balance)


def segment_loss(config: HRMConfig, part: Supervised, q_loss: Tensor, count: int) -> Tensor:
    """The part of one of `count` segments in the loss of the step; `q_loss` is its part in the Q head's."""
    loss = part.ce / count + config.q_weight * q_loss
    return loss if part.balance is None else loss + config.moe_aux_coef * (part.balance / count)


def step_output(
    config: HRMConfig, parts: Sequence[Supervised], valid: Tensor, logits: Tensor | None = None
) -> HRMOutput:
    """The numbers of a step of which `parts` are all segments, with gradient where they have one.

    `valid` (batch, time) is True where there is a target.
    """
    qs = [part.q for part in parts]
    q_losses = q_learning_losses(qs, [part.correct for part in parts], valid)
    losses = [segment_loss(config, part, q_loss, len(parts)) for part, q_loss in zip(parts, q_losses, strict=True)]
    balances = [part.balance for part in parts if part.balance is not None]
    return HRMOutput(
        loss=torch.stack(losses).sum(),
        logits=logits,
        ce=torch.stack([part.ce for part in parts]).mean(),
        q_loss=torch.stack(q_losses).sum(),
        lb_loss=torch.stack(balances).mean() if balances else None,
        used_segments=segments_in_use(config, qs, valid),
    )


def segments_in_use(config: HRMConfig, qs: list[Tensor], counted: Tensor) -> Tensor:
    """`used_segments`, or all that there are where nothing halts."""
    return used_segments(qs, counted) if config.halting else qs[0].new_tensor(len(qs), dtype=torch.float32)


def next_token_targets(labels: Tensor, real: Tensor) -> Tensor:
    """Target of every position, (batch, time): the label one to the right; none at the end and on padding."""
    return F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX).masked_fill(~real, IGNORE_INDEX)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Token-mean cross-entropy in nats, fp32; 0 when no position has a target."""
    total = F.cross_entropy(logits.flatten(0, -2).float(), targets.flatten(), reduction="sum")
    return total / (targets != IGNORE_INDEX).sum().clamp(min=1)


def score(head: nn.Module, z_h: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (batch, time, vocab), their cross-entropy, and (batch, time) whether no token beats the right one."""
    logits = head(z_h)
    return logits, cross_entropy(logits, targets), _is_likeliest(logits.detach(), targets)


def _is_likeliest(logits: Tensor, targets: Tensor) -> Tensor:
    """Where the target has the largest logit; on a CPU the largest is found in a quarter of the time of its place."""
    known = targets != IGNORE_INDEX
    target_logits = logits.gather(-1, targets.where(known, 0)[..., None])[..., 0]
    return (target_logits == logits.amax(-1)) & known
