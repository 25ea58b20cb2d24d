"""Param groups through the command line: a router with settings of its own, in both profiles, resumed, refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aios.auto_lr.param_groups import GroupSettings
from aios.auto_lr.search import SHORTEST_RUN
from aios.cli.hrm_hf.optimization import build_optimizers, restore_optimizers
from aios.core.hrm_models import HRMConfig, HRMForCausalLM
from aios.errors import UserError
from aios.settings.adaptive_lr_file import load_adaptive_lr_file, load_group_settings
from training_process import read_log, run_aios, train, train_args, train_records, train_straight_and_killed

MOE = ("--use-moe", "--num-experts=2", "--steps=80", "--lr=1e-3", "--warmup-steps=5", "--eval-every=0")
TABLE = "[adaptive_lr.groups.router]\nlr_ratio = 0.5\ncaution = 1.0\nlr_min = 1e-6\nspike_factor = 0.1\n"
LOW_START = "[adaptive_lr]\ninitial_lr = 2e-4\nlr_max = 1e-2\nwindow_size = 10\n"  # far below what a search finds
TEXTS = {"rules": TABLE, "auto": LOW_START + TABLE}


def settings_file(folder: Path, text: str = TABLE, name: str = "s.toml") -> str:
    path = folder / name
    path.write_text(text)
    return f"--adaptive-lr-config={path}"


def small_model(use_moe: bool = True) -> HRMForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 16, "num_heads": 2, "h_layers": 1, "l_layers": 1}
    return HRMForCausalLM(HRMConfig(**shape, use_moe=use_moe, num_experts=2))


@pytest.mark.parametrize("profile", [pytest.param("rules", marks=pytest.mark.slow), "auto"])
def test_the_router_goes_its_own_way_in_the_log(tmp_path: Path, profile: str) -> None:
    steps = 80 if profile == "rules" else SHORTEST_RUN - 1  # no search: the low start has to be raised
    train(
        tmp_path, *MOE, f"--steps={steps}", f"--adaptive-lr-profile={profile}", settings_file(tmp_path, TEXTS[profile])
    )
    brain = tmp_path / "brain"
    (init,) = read_log(brain, "adaptive_lr_init")
    assert init["groups"]["router"] == {
        "lr": init["initial_lr"] / 2, "lr_min": 1e-6, "lr_max": 0.5 * init["lr_max"],
        "lr_ratio": 0.5, "spike_factor": 0.1, "caution": 1.0,
    }  # fmt: skip
    assert init["param_groups"] == ["base", "base", "router"]
    changes = read_log(brain, "adaptive_lr_adjustment")
    raised = [change for change in changes if change["decision"] == "increase"]
    assert raised
    for change in raised:
        assert change["groups"]["router"]["new_lr"] == pytest.approx(change["groups"]["router"]["old_lr"])
    lrs = [record["lr"] for record in train_records(brain).values()]
    assert all(decay == no_decay for decay, no_decay, _ in lrs)
    ratios = [router / base for base, _, router in lrs]
    assert ratios[:5] == pytest.approx([0.5] * 5, rel=1e-12)
    assert min(ratios) < 0.48


@pytest.mark.slow
@pytest.mark.parametrize("profile", TEXTS)
def test_a_killed_run_with_groups_resumes_bit_for_bit(tmp_path: Path, profile: str) -> None:
    rules = ("--steps=60", "--save-every=15")
    steps = rules if profile == "rules" else (f"--steps={SHORTEST_RUN - 1}", "--save-every=20")  # no search, as above
    flags = [*MOE, *steps, f"--adaptive-lr-profile={profile}", settings_file(tmp_path, TEXTS[profile])]
    at, resume = (40 if profile == "rules" else 50), (f"--adaptive-lr-profile={profile}",)
    unbroken, broken = train_straight_and_killed(tmp_path, *flags, at=at, resume=resume)
    straight, resumed = train_records(unbroken), train_records(broken)
    assert [(r["ce"], r["lr"], r["grad_norm"]) for r in resumed.values()] == [
        (r["ce"], r["lr"], r["grad_norm"]) for r in straight.values()
    ]
    (restored,) = read_log(broken, "adaptive_lr_restored")
    base, _, router = straight[restored["from_step"] + 1]["lr"]
    assert router / base < 0.48  # what is resumed is not the ratio at the start


@pytest.mark.slow
def test_told_nothing_the_router_has_the_rate_of_all(tmp_path: Path) -> None:
    train(tmp_path, *MOE, settings_file(tmp_path, "[adaptive_lr.groups.router]\n"))
    assert all(isinstance(r["lr"], float) for r in train_records(tmp_path / "brain").values())
    assert "groups" not in read_log(tmp_path / "brain", "adaptive_lr_init")[0]


@pytest.mark.parametrize(
    ("text", "flags", "words"),
    [
        (TABLE, [], ["groups.router needs a mixture of experts", "--use-moe"]),
        ("[groups.adapter]\ncaution = 0.5", [], ["groups.adapter needs LoRA adapters", "--use-peft"]),
        ("[groups.routr]\ncaution = 0.5", ["--use-moe"], ["groups", "'routr'", "did you mean 'router'"]),
        ("[groups.base]\nlr_max = 0.5", [], ["groups.base", "adaptive_lr itself"]),
        ("[groups.router]\ncautoin = 0.5", ["--use-moe"], ["groups.router", "'cautoin'", "did you mean 'caution'"]),
        ("[groups.router]\ncaution = 'a'", ["--use-moe"], ["groups.router", "caution = 'a'", "a number"]),
        ("[groups.router]\ncaution = 2", ["--use-moe"], ["groups.router", "caution = 2", "from 0 to 1"]),
        ("groups = 3", ["--use-moe"], ["found 3"]),
        ("[groups]\nrouter = 3", ["--use-moe"], ["groups.router", "found 3"]),
    ],
)
def test_bad_tables_are_refused_in_one_sentence(tmp_path: Path, text: str, flags: list[str], words: list[str]) -> None:
    done = run_aios(*train_args(tmp_path, settings_file(tmp_path, text), *flags))
    assert done.returncode == 2
    assert not (tmp_path / "brain").exists()
    sentence = " ".join(done.stderr.split())
    assert str(tmp_path / "s.toml") in sentence
    for word in words:
        assert word in sentence


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "patience = 3\n[groups.router]\nlr_max = 1e-3\ncaution = 1\n"),
        ("a.toml", "[adaptive_lr]\npatience = 3\n[adaptive_lr.groups.router]\nlr_max = 1e-3\ncaution = 1\n"),
        ("a.yaml", "patience: 3\ngroups:\n  router:\n    lr_max: 1e-3\n    caution: 1\n"),
        ("a.json", '{"adaptive_lr": {"patience": 3, "groups": {"router": {"lr_max": 1e-3, "caution": 1}}}}'),
    ],
)
def test_tables_load_from_every_format(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert load_group_settings(path) == {"router": GroupSettings(lr_max=1e-3, caution=1.0)}
    assert load_adaptive_lr_file(path) == {"patience": 3}


@pytest.mark.parametrize("name", ["adaptive_lr.toml", "adaptive_lr.yaml"])
def test_the_tables_of_the_example_files_load_once_switched_on(tmp_path: Path, name: str) -> None:
    text = (Path(__file__).parents[3] / "config" / name).read_text()
    above, begin, tables = text.partition("Take the `#` away to use these:\n")
    assert begin
    path = tmp_path / name
    path.write_text(above + begin + "\n".join(line.replace("#", "", 1) for line in tables.splitlines()))
    router = GroupSettings(0.5, 1e-6, 1e-3, 1.05, 0.85, 0.3, 0.5)
    assert load_group_settings(path) == {"router": router, "adapter": GroupSettings(2.0)}


def test_the_example_in_the_docs_loads(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "adaptive_lr.md").read_text()
    path = tmp_path / "s.toml"
    path.write_text(page.split("```toml\n")[1].split("```")[0])
    assert load_group_settings(path) == {"router": GroupSettings(lr_ratio=0.5, lr_max=1e-3, caution=0.5)}


def test_no_file_and_an_empty_table_say_nothing(tmp_path: Path) -> None:
    assert load_group_settings(None) == {}
    path = tmp_path / "a.yaml"
    path.write_text("groups:\n  router:\n")
    assert load_group_settings(path) == {"router": GroupSettings()}
    path.write_text("groups: {1: {}}\n")
    with pytest.raises(UserError, match="unknown key 1"):
        load_group_settings(path)


def test_every_parameter_is_in_the_group_of_its_role() -> None:
    model = small_model()
    [optimizer] = build_optimizers(model, 1e-3, 0.1, "adamw")
    found = {group["name"]: (group["role"], group["weight_decay"], group["names"]) for group in optimizer.param_groups}
    assert [(role, decay) for role, decay, _ in found.values()] == [("base", 0.1), ("base", 0.0), ("router", 0.1)]
    assert sorted(found["router"][2]) == [f"{m}_module.blocks.0.mlp.router.weight" for m in "hl"]
    assert {"embed_tokens.weight", "q_head.bias"} <= set(found["no_decay"][2])
    assert sorted(n for _, _, names in found.values() for n in names) == sorted(n for n, _ in model.named_parameters())
    assert [group["name"] for group in build_optimizers(small_model(False), 1e-3, 0.1, "adamw")[0].param_groups] == [
        "decay",
        "no_decay",
    ]


def test_moments_of_a_checkpoint_from_before_the_roles_go_to_their_parameters() -> None:
    model = small_model()
    embeddings = {id(model.embed_tokens.weight)}
    parameters = list(model.parameters())
    decay = [p for p in parameters if p.dim() >= 2 and id(p) not in embeddings]
    rest = [p for p in parameters if p.dim() < 2 or id(p) in embeddings]
    old = torch.optim.AdamW([{"params": decay, "name": "decay"}, {"params": rest, "name": "no_decay"}], lr=1e-3)
    ids = torch.arange(8)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    old.step()
    [new] = build_optimizers(model, 1e-4, 0.1, "adamw")
    restore_optimizers([new], old.state_dict(), model)
    assert {group["lr"] for group in new.param_groups} == {1e-4}
    trained = [p for p in parameters if p in old.state]
    assert len(trained) == len(parameters)
    for param in trained:
        assert torch.equal(new.state[param]["exp_avg"], old.state[param]["exp_avg"])
