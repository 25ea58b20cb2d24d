"""What can be chosen of the model: initialisation, halting, segments at evaluation, gradient, one stack for both."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from aios.core.hrm_models import HRMConfig, HRMForCausalLM, load_model, read_config
from aios.core.hrm_models.layers import AttentionContext


@pytest.mark.parametrize(("corrected", "part"), [(False, 0.8796), (True, 1.0)])
def test_corrected_init_has_the_deviation_it_is_meant_to_have(corrected: bool, part: float) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "num_heads": 8, "h_layers": 1, "l_layers": 1, "vocab_size": 16}
    model = HRMForCausalLM(HRMConfig(**shape, corrected_init=corrected))
    weight = model.l_module.blocks[0].attention.qkv.weight
    assert weight.std().item() == pytest.approx(part / math.sqrt(256), rel=0.01)
    assert weight.abs().max().item() <= 2 / 0.8796 / math.sqrt(256)
    assert torch.cat((model.h_init, model.l_init)).std().item() == pytest.approx(part, rel=0.1)


def test_without_halting_all_segments_are_run_and_nothing_else_is_learned(make_model: Any, tokens: Tensor) -> None:
    model = make_model(halting=False)
    torch.nn.init.constant_(model.q_head.bias, 1.0)
    with torch.no_grad():
        model.q_head.bias[1] = -1.0  # it would halt at once
    output = model(tokens, labels=tokens)
    torch.testing.assert_close(output.loss, output.ce)
    output.loss.backward()
    assert not model.q_head.weight.grad.any()
    assert output.used_segments.item() == 3
    seen = model.eval()(tokens)
    assert seen.used_segments.item() == 3
    awake = make_model()
    assert torch.equal(seen.logits, awake.eval()(tokens).logits)  # whose Q head never wants to halt


@pytest.mark.parametrize("halting", [True, False])
def test_segments_at_evaluation_are_told_apart_from_training(make_model: Any, tokens: Tensor, halting: bool) -> None:
    model, longer = make_model(eval_segments=5, halting=halting), make_model(halt_max_steps=5, halting=halting)
    assert model(tokens, labels=tokens).used_segments.item() == 3
    model.eval(), longer.eval()
    assert torch.equal(model(tokens).logits, longer(tokens).logits)
    said = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(tokens, **said), model.generate(tokens, use_cache=False, **said))


def test_the_last_cycle_is_differentiated_whole(make_model: Any, tokens: Tensor) -> None:
    """Against the updates of a model of one cycle written out, which is all differentiated then."""
    model = make_model(h_cycles=1, l_cycles=3, halt_max_steps=1, halting=False, last_cycle_gradient=True)
    model(tokens, labels=tokens).loss.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    x = model.embed_tokens(tokens) * math.sqrt(model.config.hidden_size)
    context = AttentionContext(model.config, tokens.shape[1], None, x.device)
    z_h, z_l = model.h_init.expand_as(x), model.l_init.expand_as(x)
    for _ in range(3):
        z_l, _ = model.l_module(z_l + (z_h + x), context, None)
    z_h, _ = model.h_module(z_h + z_l, context, None)
    logits = model.lm_head(z_h)[:, :-1]
    F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        if not name.startswith("q_head"):
            torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_one_stack_makes_both_updates(make_model: Any, tokens: Tensor, tmp_path: Path) -> None:
    model = make_model(h_layers=2, shared_stack=True)
    assert not any(name.startswith("h_module") for name, _ in model.named_parameters())
    model(tokens, labels=tokens).loss.backward()
    two = make_model(h_layers=2)
    two.load_state_dict({**model.state_dict(), **{
        name.replace("l_module", "h_module"): tensor for name, tensor in model.state_dict().items()
    }})  # fmt: skip
    assert torch.equal(model.eval()(tokens).logits, two.eval()(tokens).logits)
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path, read_config(tmp_path))(tokens).logits, model(tokens).logits)


def test_models_from_before_the_choices_are_what_they_were(make_model: Any, tokens: Tensor, tmp_path: Path) -> None:
    model = make_model().eval()
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    saved = json.loads(path.read_text())
    for name in ("halting", "eval_segments", "last_cycle_gradient", "shared_stack", "corrected_init"):
        saved.pop(name, None)
    path.write_text(json.dumps(saved))
    config = read_config(tmp_path)
    assert config.halting
    assert not config.shared_stack
    assert not config.last_cycle_gradient
    assert torch.equal(load_model(tmp_path, config)(tokens).logits, model(tokens).logits)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ({"eval_segments": 0}, "eval_segments is 0"),
        ({"halting": "no"}, "halting is 'no'"),
        ({"shared_stack": True, "h_layers": 3}, "make them equal"),
    ],
)
def test_choices_that_describe_no_model_are_refused(make_model: Any, field: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make_model(**field)
