"""HRMForCausalLM: logits, gradients, precision, memory and the surface transformers expects."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

from aios.core.hrm_models import HRMConfig, HRMForCausalLM, HRMOutput
from forked import Forked

MOE = {"use_moe": True, "num_experts": 3, "num_experts_per_tok": 2}
BOTH = pytest.mark.parametrize("kind", [{}, MOE], ids=["dense", "moe"])


def wake_q_head(model: HRMForCausalLM) -> None:
    """Give the Q head weights that halt about half of the tokens in every segment."""
    torch.nn.init.normal_(model.q_head.weight)


def gradients(model: HRMForCausalLM) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@BOTH
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_later_token_never_changes_an_earlier_logit(
    make_model: Any, tokens: Tensor, kind: dict[str, Any], training: bool
) -> None:
    model = make_model(**kind).train(training)
    wake_q_head(model)
    labels = tokens if training else None
    before = model(tokens, labels=labels).logits
    for position in range(1, tokens.shape[1]):
        changed = tokens.clone()
        changed[:, position:] = (changed[:, position:] + 7) % model.config.vocab_size
        after = model(changed, labels=labels).logits
        torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-6)
        assert not torch.allclose(after[:, position], before[:, position])


@BOTH
def test_left_padding_gives_real_tokens_the_same_logits(make_model: Any, tokens: Tensor, kind: dict[str, Any]) -> None:
    model = make_model(**kind).eval()
    wake_q_head(model)
    padded = torch.cat((torch.full((2, 5), 3), tokens), dim=1)
    mask = torch.cat((torch.zeros(2, 5, dtype=torch.long), torch.ones_like(tokens)), dim=1)
    plain, shifted = model(tokens, labels=tokens), model(padded, attention_mask=mask, labels=padded)
    torch.testing.assert_close(shifted.logits[:, 5:], plain.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(shifted.ce, plain.ce)
    torch.testing.assert_close(shifted.used_segments, plain.used_segments)


def test_position_matters(make_model: Any) -> None:
    """Without rotary positions the last token would see the same set of earlier ones in both orders."""
    model = make_model().eval()
    one, other = torch.tensor([[1, 2, 3, 4]]), torch.tensor([[2, 1, 3, 4]])
    assert not torch.allclose(model(one).logits[:, -1], model(other).logits[:, -1], atol=1e-4)


@BOTH
def test_loss_starts_at_the_logarithm_of_the_vocabulary(make_model: Any, kind: dict[str, Any]) -> None:
    model = make_model(vocab_size=1000, hidden_size=1024, l_layers=1, halt_max_steps=1, **kind)
    ids = torch.randint(0, 1000, (2, 32))
    assert model(ids, labels=ids).ce.item() == pytest.approx(math.log(1000), abs=0.1)


def test_evaluation_loss_is_the_shifted_cross_entropy_of_the_logits(make_model: Any, tokens: Tensor) -> None:
    model = make_model().eval()
    labels = tokens.clone()
    labels[0, :4] = -100
    output = model(tokens, labels=labels)
    picked = output.logits.log_softmax(-1)[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    counted = labels[:, 1:] != -100
    torch.testing.assert_close(output.loss, -picked[counted].mean())
    assert output.loss is output.ce


def test_labels_without_any_target_give_zero_loss(make_model: Any, tokens: Tensor) -> None:
    output = make_model()(tokens, labels=torch.full_like(tokens, -100))
    assert output.ce.item() == 0.0
    assert output.loss.item() == 0.0


@BOTH
def test_every_parameter_gets_a_gradient(make_model: Any, tokens: Tensor, kind: dict[str, Any]) -> None:
    model = make_model(**kind)
    model(tokens, labels=tokens).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_gradients_survive_bf16_autocast(make_model: Any, tokens: Tensor) -> None:
    """Casts cached in the passes without gradient must not cut the weights off the graph."""
    model = make_model()
    model(tokens, labels=tokens).loss.backward()
    exact = gradients(model)
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(tokens, labels=tokens)
    output.loss.backward()
    assert output.ce.dtype == torch.float32
    for name, gradient in gradients(model).items():
        assert gradient.isfinite().all()
        similarity = torch.cosine_similarity(gradient.flatten(), exact[name].flatten(), dim=0)
        assert similarity > 0.9, name  # CPUs round bf16 otherwise; cut off it would be 0


@BOTH
def test_bf16_weights_stay_finite(make_model: Any, tokens: Tensor, kind: dict[str, Any]) -> None:
    model = make_model(**kind).to(torch.bfloat16)
    output = model(tokens, labels=tokens)
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert output.ce.dtype == torch.float32
    assert all(gradient.isfinite().all() for gradient in gradients(model).values())


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning")
@BOTH
def test_gradient_checkpointing_changes_no_gradient(make_model: Any, tokens: Tensor, kind: dict[str, Any]) -> None:
    model = make_model(vocab_size=2000, **kind)  # the logits of every segment must go too
    model(tokens, labels=tokens).loss.backward()
    plain = gradients(model)
    model.zero_grad()
    model.gradient_checkpointing_enable()
    saved = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        output = model(tokens, labels=tokens)
    checkpointed, saved = saved, 0
    output.loss.backward()
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, plain[name], rtol=1e-6, atol=1e-7)
    model.gradient_checkpointing_disable()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        model(tokens, labels=tokens)
    assert checkpointed < saved / 20


def two_steps(config: dict[str, Any], store: str) -> None:
    """Two steps of DDP, in a process that stands alone in its group."""
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    model = DistributedDataParallel(HRMForCausalLM(HRMConfig.from_dict(config)))
    tokens = torch.arange(24).reshape(2, 12)
    for _ in range(2):
        output = model(input_ids=tokens, labels=tokens)
        output.loss.backward()
    assert isinstance(output, HRMOutput)
    os._exit(0)  # gloo's threads and the interpreter can wait for each other at the end (pytorch#179291)


@BOTH
def test_ddp_finds_every_parameter_used(make_model: Any, kind: dict[str, Any], tmp_path: Path) -> None:
    """DDP refuses the second step when a parameter took no part in the first."""
    worker = Forked(tmp_path / "worker", two_steps, make_model(**kind).config.to_dict(), str(tmp_path / "store"))
    assert worker.wait() == 0, worker.errors


@BOTH
def test_save_and_load_through_the_auto_classes_is_bit_equal(
    make_model: Any, tokens: Tensor, kind: dict[str, Any], tmp_path: Path
) -> None:
    model = make_model(**kind).eval()
    wake_q_head(model)
    model.save_pretrained(tmp_path)
    torch.manual_seed(99)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(loaded, HRMForCausalLM)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), HRMConfig)
    assert loaded.config.to_dict().keys() == model.config.to_dict().keys()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)


def test_greedy_generation_extends_by_the_argmax_and_survives_the_context_limit(
    make_model: Any, tmp_path: Path
) -> None:
    make_model(max_position_embeddings=8, bos_token_id=1, pad_token_id=0).save_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    text = torch.tensor([[1, 5, 9, 2]])
    expected = text
    for _ in range(8):
        following = model(expected[:, -8:]).logits[:, -1].argmax(-1, keepdim=True)
        expected = torch.cat((expected, following), dim=1)
    assert torch.equal(model.generate(text, max_new_tokens=8, do_sample=False), expected)
    asking_for_a_cache = GenerationConfig(use_cache=True, max_new_tokens=8, do_sample=False)
    assert torch.equal(model.generate(text, generation_config=asking_for_a_cache), expected)


def test_generation_of_a_left_padded_batch_equals_that_of_each_text(make_model: Any) -> None:
    model = make_model(pad_token_id=0).eval()
    batch = torch.tensor([[0, 0, 7, 8], [4, 5, 6, 7]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    together = model.generate(batch, attention_mask=mask, max_new_tokens=4, do_sample=False)
    alone = model.generate(batch[:1, 2:], max_new_tokens=4, do_sample=False)
    assert torch.equal(together[:1, 2:], alone)


def test_overlong_input_and_misshapen_mask_are_refused(make_model: Any, tokens: Tensor) -> None:
    model = make_model(max_position_embeddings=8)
    with pytest.raises(ValueError, match=r"12 tokens .*max_position_embeddings 8"):
        model(tokens)
    with pytest.raises(ValueError, match=r"attention_mask has shape \(2, 3\)"):
        model(tokens[:, :8], attention_mask=torch.ones(2, 3))


def test_pefts_causal_wrapper_trains_adapters_and_what_the_model_has_not_is_refused(
    make_model: Any, tokens: Tensor
) -> None:
    peft = pytest.importorskip("peft")
    wrapped = peft.get_peft_model(make_model(), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    wrapped(input_ids=tokens, labels=tokens).loss.backward()
    assert any(p.grad is not None for name, p in wrapped.named_parameters() if "lora" in name)
    model = make_model().eval()
    for asked in ({"output_hidden_states": True}, {"output_attentions": True}, {"inputs_embeds": torch.zeros(1, 2, 4)}):
        with pytest.raises(ValueError, match="takes input_ids alone, and gives neither attentions nor hidden states"):
            model(tokens, **asked)


def test_tuple_output_on_request(make_model: Any, tokens: Tensor) -> None:
    model = make_model().eval()
    logits = model(tokens, return_dict=False)[0]
    assert torch.equal(logits, model(tokens).logits)


@BOTH
def test_memorises_a_short_sequence(make_model: Any, kind: dict[str, Any]) -> None:
    model = make_model(halt_max_steps=2, **kind)
    ids = torch.randint(0, model.config.vocab_size, (1, 16))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(100):
        optimizer.zero_grad()
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    assert model.eval()(ids, labels=ids).ce.item() < 0.5
