"""Configuration of the HRM ACT v1 causal language model."""

from __future__ import annotations

import sys
from typing import Any

from transformers import PretrainedConfig

from aios.core.architecture import LARGEST_EXPANSION, SIZES, flaw_of, swiglu_width
from aios.errors import shown


class HRMConfig(PretrainedConfig):  # type: ignore[misc,unused-ignore]
    """Shape, halting and loss weights of `HRMForCausalLM`; keyword arguments only.

    Raises ValueError, one sentence naming field and value, when the fields do not describe a model.
    """

    model_type = "hrm_act_v1"

    vocab_size: int = 32000
    """Rows of the embedding and of the output head."""
    hidden_size: int = 512
    """Width of the residual stream and of both states z_H and z_L."""
    h_layers: int = 4
    """Blocks in the slow (H) stack."""
    l_layers: int = 4
    """Blocks in the fast (L) stack."""
    h_cycles: int = 2
    """H updates in one segment."""
    l_cycles: int = 2
    """L updates before each H update."""
    num_heads: int = 8
    """Attention heads; hidden_size / num_heads must be even (rotary positions rotate pairs)."""
    expansion: float = 4.0
    """SwiGLU expansion: the inner width is 2/3 of expansion x hidden_size, see `intermediate_size`."""
    halt_max_steps: int = 4
    """Segments after which ACT halts every token."""
    max_position_embeddings: int = 2048
    """Longest sequence the model accepts, in tokens; `generate` keeps the last so many."""
    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""
    rms_norm_eps: float = 1e-5
    """Added to the mean square in RMSNorm."""
    initializer_range: float = 0.02
    """Standard deviation of the router's weights; upper bound of the output head's."""
    use_moe: bool = False
    """Mixture of SwiGLU experts in place of every block's SwiGLU."""
    num_experts: int = 4
    """Experts per block (only read when use_moe)."""
    num_experts_per_tok: int = 2
    """Experts a token is routed to (only read when use_moe)."""
    moe_aux_coef: float = 0.01
    """Weight of the load-balancing loss in `loss`."""
    q_loss_coef: float = 1.0
    """Weight of the Q-head's loss in `loss`."""
    halting: bool = True
    """Whether tokens halt, and the Q head learns when (paper, section 2, ACT); else every segment is run, always."""
    eval_segments: int | None = None
    """Segments after which every token halts in evaluation and generation; None: as in training.

    More than in training is the paper's inference-time scaling (section 3).
    """
    last_cycle_gradient: bool = False
    """Differentiate all L updates of the last cycle, not the last one alone.

    As in the Tiny Recursive Model (Jolicoeur-Martineau 2025, arXiv 2510.04871), in place of HRM's one-step gradient.
    """
    shared_stack: bool = False
    """One stack of blocks for H and L updates, as in the Tiny Recursive Model; h_layers must be l_layers."""
    corrected_init: bool = False
    """Draw weights and states with the deviation they are meant to have.

    As the reference of the paper does: a normal cut off at two deviations has 0.88 of its own. Weights of width 512
    begin at 0.0442, not 0.0388.
    """
    tie_word_embeddings: bool = False
    """Always False: input embedding and output head have different scales."""
    bos_token_id: int | None = None
    """Begin-of-text token."""
    eos_token_id: int | list[int] | None = None
    """End-of-text token; `generate` stops at it."""
    pad_token_id: int | None = None
    """Padding token."""

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the fields once they are set (transformers calls this at the end of `__init__`)."""
        super().__post_init__(**kwargs)
        self._require_positive_sizes()
        self._require_positive_numbers()
        self._require_switches_and_tokens()
        flaw = flaw_of(vars(self), named=str)
        if flaw is not None:
            raise ValueError(flaw)
        if self.tie_word_embeddings:
            raise ValueError("tie_word_embeddings True is not supported; leave it False")

    def _require_positive_sizes(self) -> None:
        others = ("vocab_size", "eval_segments", "max_position_embeddings", "num_experts", "num_experts_per_tok")
        for name in (*SIZES, *others):
            value = getattr(self, name)
            if name == "eval_segments" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {shown(value)}; it must be a whole number of at least 1")

    def _require_positive_numbers(self) -> None:
        for name in ("expansion", "rope_theta", "rms_norm_eps", "initializer_range"):
            value = getattr(self, name)
            if not (_is_finite(value) and value > 0):
                raise ValueError(f"{name} is {shown(value)}; it must be a finite number above 0")
        if self.expansion > LARGEST_EXPANSION:
            raise ValueError(f"expansion is {shown(self.expansion)}; it must be at most {LARGEST_EXPANSION}")
        for name in ("moe_aux_coef", "q_loss_coef"):
            value = getattr(self, name)
            if not (_is_finite(value) and value >= 0):
                raise ValueError(f"{name} is {shown(value)}; it must be a finite number of at least 0")

    def _require_switches_and_tokens(self) -> None:
        for name in ("use_moe", "halting", "last_cycle_gradient", "shared_stack", "corrected_init"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {shown(getattr(self, name))}; it must be true or false")
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            value = getattr(self, name)
            ids = value if isinstance(value, list) and name == "eos_token_id" else [value]
            if not all(each is None or type(each) is int for each in ids):
                raise ValueError(f"{name} is {shown(value)}; it must be the number of a token")

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def segments_at_evaluation(self) -> int:
        """Segments after which every token halts when the model is not trained."""
        return self.halt_max_steps if self.eval_segments is None else self.eval_segments

    @property
    def q_weight(self) -> float:
        """Weight of the Q head's loss; 0 where nothing halts."""
        return self.q_loss_coef if self.halting else 0.0

    @property
    def differentiated_updates(self) -> int:
        """L updates of a segment that have a gradient, the last ones."""
        return self.l_cycles if self.last_cycle_gradient else 1

    @property
    def intermediate_size(self) -> int:
        """Inner width of a SwiGLU, see `swiglu_width`."""
        return swiglu_width(self.hidden_size, self.expansion)


def _is_finite(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and abs(value) <= sys.float_info.max  # as a comparison: a whole number may be too large for a float
