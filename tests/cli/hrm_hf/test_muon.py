"""`--optimizer muon`: which weights it trains; through the command line: killed, resumed, changed, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aios.cli.hrm_hf.optimization import build_optimizers
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.runs.manifest import STATE_FILE
from training_process import read_log, run_aios, train, train_args, train_records, train_straight_and_killed

FLAGS = ("--optimizer=muon", "--lr=2e-3", "--eval-every=0")
LIGHT = ("--h-layers=1", "--l-layers=1", "--h-cycles=1", "--l-cycles=1", "--halt-max-steps=1")


@pytest.mark.parametrize("use_moe", [False, True])
def test_muon_trains_the_matrices_within_the_blocks_and_adamw_all_the_rest(use_moe: bool) -> None:
    shape = {"vocab_size": 50, "hidden_size": 16, "num_heads": 2, "h_layers": 1, "l_layers": 1}
    model = HRMForCausalLM(HRMConfig(**shape, use_moe=use_moe, num_experts=2))
    muon, adamw = build_optimizers(model, 1e-3, 0.1, "muon")
    assert (type(muon), type(adamw)) == (torch.optim.Muon, torch.optim.AdamW)
    names = {group["name"]: group["names"] for group in [*muon.param_groups, *adamw.param_groups]}
    stacks = [f"{stack}_module.blocks.0" for stack in "hl"]
    parts = ("attention.qkv", "attention.out", "mlp.gate_up", "mlp.down")
    assert names["hidden"] == [f"{stack}.{part}.weight" for stack in stacks for part in parts]
    assert names["decay"] == ["lm_head.weight", "q_head.weight"]
    assert names["no_decay"] == ["embed_tokens.weight", "q_head.bias"]
    assert names.get("router", []) == [f"{stack}.mlp.router.weight" for stack in stacks if use_moe]
    assert sum(map(len, names.values())) == len(list(model.parameters()))


@pytest.mark.parametrize("profile", [pytest.param("auto", marks=pytest.mark.slow), "rules"])
def test_a_killed_run_resumes_bit_for_bit(tmp_path: Path, profile: str) -> None:
    steps = ("--steps=120", "--save-every=20") if profile == "auto" else ("--steps=30", "--save-every=10")
    flags = (*LIGHT, *FLAGS, *steps, "--use-moe", "--num-experts=2", f"--adaptive-lr-profile={profile}")
    at, resume = (70 if profile == "auto" else 15), (f"--adaptive-lr-profile={profile}",)
    brains = train_straight_and_killed(tmp_path, *flags, at=at, resume=resume)
    straight, resumed = map(train_records, brains)
    for key in ("loss", "lr", "grad_norm"):
        assert [resumed[step][key] for step in straight] == [record[key] for record in straight.values()]
    first, second = (brain / "model.safetensors" for brain in brains)
    assert first.read_bytes() == second.read_bytes()


def test_a_run_may_change_its_optimizer_on_resume(tmp_path: Path) -> None:
    """What the other one knew of a weight is left out; what the same one knew is gone on with."""
    train(tmp_path, *LIGHT, "--lr=2e-3", "--eval-every=0", "--steps=10", "--optimizer=adamw")
    train(tmp_path, "--resume", "--steps=20", "--optimizer=muon")
    train(tmp_path, "--resume", "--steps=30", "--optimizer=adamw")
    records = train_records(tmp_path / "brain")
    assert list(records) == list(range(1, 31))
    assert records[30]["loss"] < records[1]["loss"]
    (checkpoint,) = [r for r in read_log(tmp_path / "brain", "checkpoint") if r["step"] == 20]
    state = torch.load(Path(checkpoint["path"]) / STATE_FILE, weights_only=True)["optimizer"]
    kinds = {tuple(sorted(moments)) for moments in state["state"].values()}
    assert kinds == {("momentum_buffer",), ("exp_avg", "exp_avg_sq", "step")}


@pytest.mark.parametrize("other", [("--zero-stage=zero1",), ("--use-peft", "--student-init=x")])
def test_what_muon_cannot_train_is_refused(tmp_path: Path, other: tuple[str, ...]) -> None:
    done = run_aios(*train_args(tmp_path, *FLAGS, *other))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --optimizer muon does not go with ")
    assert not (tmp_path / "brain").exists()
