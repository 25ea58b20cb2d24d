"""Compiled stacks: the same training, names and files; who cannot have it hears so in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from aios.core.hrm_models import HRMConfig, HRMForCausalLM, load_model, read_config
from aios.engines.compiled import compile_mode, compile_stacks
from aios.errors import UserError
from aios.settings.config import TrainingConfig
from aios.settings.preflight import check_inputs

CPU = torch.device("cpu")


def gradients(model: HRMForCausalLM, ids: Tensor) -> list[Tensor]:
    for loss, _ in model.segment_losses(ids, ids):
        loss.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    return found


def test_cuda_graphs_are_for_steps_of_one_backward_pass() -> None:
    cuda = torch.device("cuda")
    assert [compile_mode(cuda, 1), compile_mode(cuda, 2), compile_mode(CPU, 1)] == ["reduce-overhead", None, None]


@pytest.mark.parametrize("other", [{"zero_stage": "zero1"}, {"gradient_checkpointing": True}])
def test_what_it_does_not_go_with_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="--compile does not go with"):
        TrainingConfig(compile=True, **other)


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"--compile needs a C\+\+ compiler"):
        check_inputs(TrainingConfig(compile=True))


@pytest.mark.slow
def test_gradients_names_and_files_stay_and_no_rate_is_compiled_in(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_heads": 2, "h_layers": 1, "l_layers": 1, "halt_max_steps": 3}
    model = HRMForCausalLM(HRMConfig(vocab_size=53, max_position_embeddings=32, **shape)).train()
    ids = torch.randint(0, 53, (2, 12))
    expected, names = gradients(model, ids), list(model.state_dict())
    counters.clear()
    compile_stacks(model, CPU, 3)
    for ours, theirs in zip(gradients(model, ids), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    graphs = counters["stats"]["unique_graphs"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    for lr in (1e-3, 3e-3, 5e-4):
        optimizer.param_groups[0]["lr"] = lr
        for loss, _ in model.segment_losses(ids, ids):
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    logits = model(ids).logits
    model.generate(ids[:1], max_new_tokens=4)
    assert counters["stats"]["unique_graphs"] == graphs == 2, "with a gradient and without"
    assert not counters["graph_break"]
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path, read_config(tmp_path))(ids).logits, logits)
