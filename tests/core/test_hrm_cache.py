"""Generation with a cache against the uncached forward, on models whose tokens halt at different segments."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from aios.core.hrm_models import CACHE_NAME, HRMCache, HRMForCausalLM

MOE = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2}
BOTH = pytest.mark.parametrize("kind", [{}, MOE], ids=["dense", "moe"])
DENSE = pytest.mark.parametrize("kind", [{}, pytest.param(MOE, marks=pytest.mark.slow)], ids=["dense", "moe"])
NAMES = pytest.mark.parametrize("name", ["past_key_values", "cache"])
TEXT = torch.tensor([[1, 5, 9, 2, 30, 7]])
PADDED = torch.tensor([[0, 0, 0, 7, 8, 11], [4, 5, 6, 7, 50, 3], [0, 22, 3, 9, 41, 40]])
PADDED_MASK = (PADDED != 0).long()


def make_halting(make_model: Any, **overrides: Any) -> HRMForCausalLM:
    """A model in which about half of the tokens halt in each segment."""
    model: HRMForCausalLM = make_model(pad_token_id=0, **overrides).eval()
    with torch.no_grad():
        nn.init.normal_(model.q_head.weight, generator=torch.Generator().manual_seed(3))
        model.q_head.bias.zero_()
        model.lm_head.weight.mul_(20)  # near ties would make equal tokens a matter of rounding
    return model


def both_ways(model: HRMForCausalLM, text: Tensor, **how: Any) -> tuple[Tensor, Tensor]:
    """What `generate` makes of `text` with a cache, and without one."""
    how = {"do_sample": False, **how}
    return model.generate(text, use_cache=True, **how), model.generate(text, use_cache=False, **how)


class Lengths:
    """How many tokens each pass through the first block of the L module computed."""

    def __init__(self, model: HRMForCausalLM) -> None:
        self.seen: list[int] = []
        model.l_module.register_forward_pre_hook(lambda _, args: self.seen.append(args[0].shape[1]))


@BOTH
@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_logits_token_by_token_equal_those_of_the_whole_text(
    make_model: Any, tokens: Tensor, kind: dict[str, Any], steps: int
) -> None:
    model = make_halting(make_model, halt_max_steps=steps, **kind)
    lengths, cache = Lengths(model), HRMCache(model.config)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in tokens.split([4, 1, 1, 3, 1, 1, 1], dim=1)]
        caught_up = max(lengths.seen[lengths.seen.index(1) :]) > 3
        whole = model(tokens).logits
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)
    assert caught_up == (steps > 1), "older tokens must have come to a segment late, where there are several"
    assert cache.get_seq_length() == tokens.shape[1]


@BOTH
@pytest.mark.parametrize(
    "steps", [1, 2, pytest.param(3, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_greedy_tokens_are_equal(make_model: Any, kind: dict[str, Any], steps: int) -> None:
    cached, plain = both_ways(make_halting(make_model, halt_max_steps=steps, **kind), TEXT, max_new_tokens=20)
    assert torch.equal(cached, plain)
    assert cached.shape[1] == 26


@DENSE
def test_a_left_padded_batch_is_equal(make_model: Any, kind: dict[str, Any]) -> None:
    model = make_halting(make_model, **kind)
    cached, plain = both_ways(model, PADDED, attention_mask=PADDED_MASK, max_new_tokens=20)
    assert torch.equal(cached, plain)
    alone = model.generate(PADDED[:1, 3:], max_new_tokens=20, do_sample=False)
    assert torch.equal(cached[:1, 3:], alone)


@BOTH
def test_beams_are_equal(make_model: Any, kind: dict[str, Any]) -> None:
    how = {"attention_mask": PADDED_MASK, "max_new_tokens": 12, "num_beams": 3, "num_return_sequences": 2}
    cached, plain = both_ways(make_halting(make_model, **kind), PADDED, **how)
    assert torch.equal(cached, plain)


@DENSE
def test_a_text_that_outgrows_the_window_is_equal(make_model: Any, kind: dict[str, Any]) -> None:
    model = make_halting(make_model, max_position_embeddings=12, **kind)
    for how in ({}, {"num_beams": 2}):
        cached, plain = both_ways(model, PADDED, attention_mask=PADDED_MASK, max_new_tokens=14, **how)
        assert torch.equal(cached, plain)
    long = torch.arange(1, 16)[None]
    cached, plain = both_ways(model, long, max_new_tokens=4)
    assert torch.equal(cached, plain)


def test_sampling_draws_the_same_tokens(make_model: Any) -> None:
    model = make_halting(make_model)
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(4)
        drawn.append(model.generate(TEXT, use_cache=use_cache, do_sample=True, temperature=5.0, max_new_tokens=20))
    assert torch.equal(*drawn)


def test_bf16_agrees_to_its_precision(make_model: Any, tokens: Tensor) -> None:
    model = make_model().eval().to(torch.bfloat16)  # without halting, which rounding could move
    cache = HRMCache(model.config)
    with torch.no_grad():
        parts = [model(part, past_key_values=cache).logits for part in tokens.split([5, 1, 1, 5], dim=1)]
        whole = model(tokens).logits
    assert parts[0].dtype == torch.bfloat16
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=0.1, atol=0.02)


def test_cache_is_the_default_and_computes_each_token_once(make_model: Any) -> None:
    model = make_model(pad_token_id=0).eval()  # its tokens never halt before the last segment
    lengths, config = Lengths(model), model.config
    model.generate(TEXT, max_new_tokens=5, do_sample=False)
    passes = config.halt_max_steps * config.h_cycles * config.l_cycles
    assert lengths.seen == [6] * passes + [1] * 4 * passes


@NAMES
@pytest.mark.filterwarnings("error")
def test_a_cache_goes_on_where_an_earlier_answer_ended(make_model: Any, name: str) -> None:
    model = make_halting(make_model)
    first = model.generate(TEXT, max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
    assert isinstance(first[CACHE_NAME], HRMCache)
    longer = torch.cat((first.sequences, torch.tensor([[9, 12, 3]])), dim=1)
    lengths = Lengths(model)
    how = {"attention_mask": torch.ones_like(longer), "max_new_tokens": 8, "do_sample": False}
    cached = model.generate(longer, **{name: first[CACHE_NAME]}, **how)
    assert lengths.seen[0] == 4  # the last token of the answer, and the three new ones
    assert torch.equal(cached, model.generate(longer, use_cache=False, **how))


@NAMES
@pytest.mark.parametrize("way", ["assistant_model", "prompt_lookup_num_tokens", "prefill_chunk_size"])
def test_assistance_and_prompts_in_pieces_take_a_given_cache(make_model: Any, way: str, name: str) -> None:
    model, text = make_halting(make_model), torch.tensor([[1, 5, 9, 2, 30, 7, 5, 9, 2, 30, 7, 5, 9]])
    lengths = Lengths(model)
    given = {"assistant_model": make_halting(make_model, halt_max_steps=1)}.get(way, 3)
    how = {"max_new_tokens": 12, "do_sample": False}
    cached = model.generate(text, **{way: given, name: HRMCache(model.config)}, **how)
    computed = sum(lengths.seen)
    assert torch.equal(cached, model.generate(text, use_cache=False, **how))
    assert computed < (sum(lengths.seen) - computed) / 2


def test_rows_can_be_chosen_and_repeated(make_model: Any, tokens: Tensor) -> None:
    model = make_halting(make_model)
    cache = HRMCache(model.config)
    with torch.no_grad():
        model(tokens[:, :8], past_key_values=cache)
        cache.batch_select_indices(torch.tensor([1]))
        cache.batch_repeat_interleave(2)
        parts = [model(part.expand(2, -1), past_key_values=cache).logits for part in tokens[1:, 8:].split(1, dim=1)]
        whole = model(tokens[1:]).logits[:, 8:]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole.expand(2, -1, -1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("removed", [1, 4, 7])
def test_tokens_can_be_taken_back(make_model: Any, tokens: Tensor, removed: int) -> None:
    model = make_halting(make_model)
    cache = HRMCache(model.config)
    kept = 10 - removed
    with torch.no_grad():
        for part in tokens[:, :10].split(1, dim=1):
            model(part, past_key_values=cache)
        cache.crop(-removed)
        assert cache.get_seq_length() == kept
        parts = [model(part, past_key_values=cache).logits for part in tokens[:, kept:].split(1, dim=1)]
        whole = model(tokens).logits[:, kept:]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, rtol=1e-5, atol=1e-5)


@NAMES
def test_loss_of_the_new_tokens(make_model: Any, tokens: Tensor, name: str) -> None:
    model = make_halting(make_model)
    cache = HRMCache(model.config)
    model(tokens[:, :5], **{name: cache})
    output = model(tokens[:, 5:], labels=tokens[:, 5:], **{name: cache})
    assert output[CACHE_NAME] is cache
    labels = tokens.clone()
    labels[:, :6] = -100  # the sixth is the target of a token that was there before
    torch.testing.assert_close(output.loss, model(tokens, labels=labels).loss)


def test_what_cannot_be_kept_is_refused(make_model: Any, tokens: Tensor) -> None:
    model = make_model(max_position_embeddings=14)
    with pytest.raises(ValueError, match=r"evaluation mode; call eval\(\)"):
        model(tokens, labels=tokens, use_cache=True)
    model.eval()
    with pytest.raises(ValueError, match="DynamicCache, which cannot keep an HRM's tokens; give an HRMCache"):
        model(tokens, past_key_values=DynamicCache())
    cache = model(tokens, use_cache=True)[CACHE_NAME]
    for taker in (model, model.generate):
        with pytest.raises(ValueError, match="past_key_values and cache are two names of one argument"):
            taker(tokens[:, :1], past_key_values=cache, cache=cache)
    with pytest.raises(ValueError, match=r"15 tokens .*max_position_embeddings 14"):
        model(tokens[:, :3], past_key_values=cache)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 1\), the tokens \(2, 13\)"):
        model(tokens[:, :1], attention_mask=torch.ones(2, 1), past_key_values=cache)
