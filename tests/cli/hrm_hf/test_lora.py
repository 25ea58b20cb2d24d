"""LoRA through the command line: base weights stay, the loss falls, the brain is a plain one, resume is exact."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import aios.core.hrm_models
from absent_packages import hide
from aios.cli.hrm_hf.lora import add_adapters, base_weights, merged_weights
from aios.cli.hrm_hf.optimization import build_optimizers
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.settings.config import TrainingConfig
from training_process import (
    read_log,
    run_aios,
    run_aios_anew,
    train,
    train_args,
    train_records,
    train_straight_and_killed,
)

FLAGS = ("--use-peft", "--lr=1e-2", "--warmup-steps=3", "--eval-every=0", "--lora-rank=4")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A brain that has learned a little."""
    folder = tmp_path_factory.mktemp("student")
    train(folder, "--steps=40", "--lr=3e-3", "--eval-every=0")
    return folder / "brain"


def adapted(rank: int = 4) -> HRMForCausalLM:
    """A tiny model with adapters that add something."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_heads": 2, "h_layers": 1, "l_layers": 1}
    model = HRMForCausalLM(HRMConfig(**shape, use_moe=True, num_experts=2))
    add_adapters(model, TrainingConfig(use_peft=True, lora_rank=rank))
    with torch.no_grad():
        for name, param in model.named_parameters():
            if "lora_B" in name:
                param.normal_(std=0.1)
    return model.eval()


def test_merged_weights_compute_what_the_adapted_model_does() -> None:
    model = adapted()
    plain = HRMForCausalLM(model.config).eval()
    ids = torch.arange(12)[None]
    with torch.no_grad():
        plain.load_state_dict(base_weights(model))
        assert not torch.allclose(plain(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-3)
        plain.load_state_dict(merged_weights(model))
        torch.testing.assert_close(plain(input_ids=ids).logits, model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_only_adapters_are_trained_and_their_role_says_so() -> None:
    model = adapted(rank=3)
    [optimizer] = build_optimizers(model, 1e-3, 0.1, "adamw")
    (group,) = optimizer.param_groups
    assert (group["name"], group["role"]) == ("adapter", "adapter")
    assert sum(p.numel() for p in group["params"]) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    hosts = {name.split(".lora_")[0].rsplit(".", 1)[1] for name in group["names"]}
    assert hosts == {"qkv", "out", "gate_up", "down"}
    assert {p.shape[0] for p, n in zip(group["params"], group["names"], strict=True) if "lora_A" in n} == {3}


def test_fine_tuning_leaves_the_base_alone_and_publishes_a_plain_brain(
    tmp_path: Path, student: Path, psalms: Path
) -> None:
    data = f"--dataset-file={psalms}"
    train(tmp_path, *FLAGS, "--steps=60", f"--student-init={student}", data)
    brain, checkpoint = tmp_path / "brain", tmp_path / "brain" / "checkpoints" / "step-60"
    ce = [record["ce"] for record in train_records(brain).values()]
    assert sum(ce[-10:]) / 10 < sum(ce[:10]) / 10 - 0.1
    before, base = load_file(student / "model.safetensors"), load_file(checkpoint / "base.safetensors")
    assert before.keys() == base.keys()
    assert all(torch.equal(before[name], base[name]) for name in base)
    published = load_file(brain / "model.safetensors")
    changed = {name for name in published if not torch.equal(published[name], before[name])}
    assert changed
    assert all(name.split(".")[-2] in ("qkv", "out", "gate_up", "down") for name in changed)
    shutil.rmtree(brain / "checkpoints")  # the brain is whole without them
    assert aios.core.hrm_models.HRMForCausalLM  # the import registers the Auto classes
    loaded = AutoModelForCausalLM.from_pretrained(brain)
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in published.items())
    train(tmp_path / "next", "--steps=5", f"--student-init={brain}", "--eval-every=0")


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["rules", "auto"])
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, student: Path, profile: str) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text("[adaptive_lr.groups.adapter]\nlr_ratio = 2.0\ncaution = 0.5\n")
    flags = [*FLAGS, "--steps=60", "--save-every=15", f"--adaptive-lr-profile={profile}"]
    flags += [f"--student-init={student}", f"--adaptive-lr-config={settings}"]
    resume = (f"--adaptive-lr-profile={profile}",)
    unbroken, broken = train_straight_and_killed(tmp_path, *flags, at=33, resume=resume)
    straight, resumed = train_records(unbroken), train_records(broken)
    for key in ("loss", "ce", "lr", "grad_norm"):
        assert [r[key] for r in resumed.values()] == [r[key] for r in straight.values()]
    (init, *_) = read_log(broken, "adaptive_lr_init")
    assert init["groups"]["adapter"]["lr"] == 2 * init["initial_lr"]
    assert straight[3]["lr"] == 2 * init["initial_lr"]
    first, second = (brain / "model.safetensors" for brain in (unbroken, broken))
    assert first.read_bytes() == second.read_bytes()


def test_a_run_goes_on_without_adapters_from_the_merged_weights(tmp_path: Path, student: Path) -> None:
    train(tmp_path, *FLAGS, "--steps=20", f"--student-init={student}")
    merged = load_file(tmp_path / "brain" / "model.safetensors")
    train(tmp_path, "--resume", "--no-use-peft", "--steps=30")
    assert not (tmp_path / "brain" / "checkpoints" / "step-30" / "base.safetensors").exists()
    after = load_file(tmp_path / "brain" / "model.safetensors")
    assert not torch.equal(after["embed_tokens.weight"], merged["embed_tokens.weight"])
    train(tmp_path, "--resume", "--use-peft", "--steps=35")
    base = load_file(tmp_path / "brain" / "checkpoints" / "step-35" / "base.safetensors")
    assert all(torch.equal(base[name], after[name]) for name in base)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], ["--use-peft adapts a model that is trained already", "--student-init"]),
        (["--lora-rank=0"], ["--lora-rank is 0", "at least 1"]),
        (["--lora-alpha=-1"], ["--lora-alpha is -1", "at least 1"]),
    ],
)
def test_adapters_that_make_no_sense_are_refused(tmp_path: Path, flags: list[str], words: list[str]) -> None:
    done = run_aios(*train_args(tmp_path, "--use-peft", *flags))
    assert done.returncode == 2
    assert not (tmp_path / "brain").exists()
    for word in words:
        assert word in " ".join(done.stderr.split())


def test_another_rank_on_resume_is_refused(tmp_path: Path, student: Path) -> None:
    train(tmp_path, *FLAGS, "--steps=5", f"--student-init={student}")
    done = run_aios(*train_args(tmp_path, "--resume", "--steps=9", "--lora-rank=2"))
    assert done.returncode == 2
    assert "adapters with --lora-rank 4, not 2; leave the flag out" in " ".join(done.stderr.split())


def test_settings_for_a_frozen_router_are_refused(tmp_path: Path, student: Path) -> None:
    settings = tmp_path / "s.toml"
    settings.write_text("[groups.router]\ncaution = 1\n")
    flags = ("--use-peft", f"--student-init={student}", f"--adaptive-lr-config={settings}")
    done = run_aios(*train_args(tmp_path, *flags))
    assert done.returncode == 2
    assert "--use-peft trains adapters alone" in " ".join(done.stderr.split())


def test_without_peft_the_remedy_is_named(tmp_path: Path, student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", hide(tmp_path / "hidden", "peft"))
    done = run_aios_anew(*train_args(tmp_path, "--use-peft", f"--student-init={student}"))
    assert done.returncode == 2
    assert "pip install 'aios-autolr[peft]'" in " ".join(done.stderr.split())
