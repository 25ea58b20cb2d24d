"""HRMConfig: validation and the sizes of the presets."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from aios.core.architecture import PRESETS
from aios.core.hrm_models import HRMConfig, HRMForCausalLM

VOCAB = 2048


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 0),
        ("hidden_size", 0),
        ("h_layers", 0),
        ("l_cycles", -1),
        ("num_heads", 2.5),
        ("halt_max_steps", 0),
        ("expansion", 0.0),
        ("expansion", math.inf),
        ("expansion", 2_000_000),
        ("rms_norm_eps", math.nan),
        ("rope_theta", -1.0),
        ("initializer_range", 0.0),
        ("q_loss_coef", -0.5),
        ("moe_aux_coef", math.nan),
        ("tie_word_embeddings", True),
    ],
)
def test_impossible_value_is_refused_by_name_and_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"{field}.*{value}"):
        HRMConfig(**{field: value})


def test_heads_must_split_the_width_into_even_parts() -> None:
    with pytest.raises(ValueError, match="hidden_size 30 does not split into 4 attention heads"):
        HRMConfig(hidden_size=30, num_heads=4)
    with pytest.raises(ValueError, match="hidden_size 12 does not split into 4 attention heads"):
        HRMConfig(hidden_size=12, num_heads=4)


def test_top_k_is_bounded_by_the_experts_only_when_there_are_experts() -> None:
    with pytest.raises(ValueError, match="num_experts_per_tok is 3, more than the 2 experts"):
        HRMConfig(use_moe=True, num_experts=2, num_experts_per_tok=3)
    assert HRMConfig(use_moe=False, num_experts=2, num_experts_per_tok=3).num_experts == 2


@pytest.mark.parametrize(
    ("hidden", "expansion", "width"), [(512, 4.0, 1536), (128, 4.0, 512), (384, 1.0, 256), (32, 0.1, 256)]
)
def test_swiglu_width_is_two_thirds_rounded_up(hidden: int, expansion: float, width: int) -> None:
    assert HRMConfig(hidden_size=hidden, num_heads=4, expansion=expansion).intermediate_size == width


@pytest.mark.parametrize(
    ("preset", "width", "body"),
    [
        ("tiny", 512, 524_288),  # 2 blocks of 4 * 128^2 + 3 * 128 * 512
        ("small", 768, 3_407_872),  # 4 blocks of 4 * 256^2 + 3 * 256 * 768
        ("base", 1536, 27_262_976),  # 8 blocks of 4 * 512^2 + 3 * 512 * 1536: the paper's 27 M
    ],
)
def test_preset_has_exactly_the_parameters_of_the_formula(preset: str, width: int, body: int) -> None:
    arch = PRESETS[preset]
    hidden = arch.hidden_size
    with torch.device("meta"):
        model = HRMForCausalLM(HRMConfig(vocab_size=VOCAB, **dataclasses.asdict(arch)))
    attention = 3 * hidden * hidden + hidden * hidden  # q, k, v and the output projection
    swiglu = 3 * hidden * width  # gate, up, down
    assert body == (arch.h_layers + arch.l_layers) * (attention + swiglu)
    embedding_and_head = 2 * VOCAB * hidden
    q_head = 2 * hidden + 2
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == body + embedding_and_head + q_head


def test_experts_multiply_the_swiglu_and_add_a_router() -> None:
    sizes: dict[str, Any] = {
        "vocab_size": 64,
        "hidden_size": 32,
        "num_heads": 4,
        "h_layers": 1,
        "l_layers": 1,
    }
    with torch.device("meta"):
        dense = HRMForCausalLM(HRMConfig(**sizes)).num_parameters()
        sparse = HRMForCausalLM(HRMConfig(**sizes, use_moe=True, num_experts=3)).num_parameters()
    assert sparse - dense == 2 * (2 * 3 * 32 * 256 + 3 * 32)
