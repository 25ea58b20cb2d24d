"""Parts of a model that train at a rate of their own: which they are, and that only their updates are scaled."""

from __future__ import annotations

from torch import nn

from aios.auto_lr.loop.roles import roles_of
from aios.core.hrm_models import HRMConfig, HRMForCausalLM

# What is what.


def test_roles_are_told_by_type_name_and_shape() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn, self.norm, self.up = nn.MultiheadAttention(8, 2), nn.LayerNorm(8), nn.Linear(8, 16)
            self.cell, self.q_proj, self.lora_A, self.router = nn.LSTMCell(8, 8), *(nn.Linear(8, 8) for _ in range(3))
            self.lm_head, self.bag = nn.Linear(8, 4), nn.EmbeddingBag(4, 8)

    roles = roles_of(nn.ModuleList([Block()]))

    expected = {
        **dict.fromkeys(("attn.in_proj_weight", "attn.out_proj.weight", "q_proj.weight"), "attention"),
        **dict.fromkeys(("norm.weight", "up.bias"), "norm"),
        **dict.fromkeys(("cell.weight_hh", "cell.bias_ih"), "recurrent"),
        "up.weight": "mlp",
        "router.weight": "router",
        "lm_head.weight": "head",
        "bag.weight": "embedding",
        "lora_A.weight": "adapter",
    }
    assert {name: roles[f"0.{name}"] for name in expected} == expected


def test_a_module_says_what_all_its_weights_are_for_and_a_part_of_it_otherwise() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    model[1].lr_role = "recurrent"
    model[1][1].lr_role = "embedding"
    assert roles_of(model) == {
        "0.weight": "mlp",
        "0.bias": "norm",
        "1.0.weight": "recurrent",
        "1.0.bias": "recurrent",
        "1.1.weight": "embedding",
        "1.1.bias": "embedding",
    }


def test_the_blocks_of_an_hrm_are_recurrent_and_nothing_else_of_it() -> None:
    shape = {"hidden_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1, "vocab_size": 64}
    roles = roles_of(HRMForCausalLM(HRMConfig(**shape)))
    assert {name for name, role in roles.items() if role == "recurrent"} == {n for n in roles if ".blocks." in n}
