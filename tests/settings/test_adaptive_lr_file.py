"""The settings file: what loads, and one clear sentence naming file and key for what does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aios.auto_lr.plan import Given, make_plan
from aios.cli.hrm_hf.adaptive_lr import AdaptiveLRConfig
from aios.errors import UserError
from aios.settings.adaptive_lr_file import load_adaptive_lr_file
from aios.settings.config import TrainingConfig
from aios.settings.learning_rate import auto_lr_config

EXAMPLES = Path(__file__).parents[2] / "config"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "lr_min = 1e-6\npatience = 30\nrate_limit_spikes = true\n"),
        ("a.toml", "[adaptive_lr]\nlr_min = 1e-6\npatience = 30\nrate_limit_spikes = true\n"),
        ("a.yaml", "lr_min: 1e-6\npatience: 30\nrate_limit_spikes: true\n"),
        ("a.YML", "adaptive_lr:\n  lr_min: 1.0e-6\n  patience: 30\n  rate_limit_spikes: true\n"),
        ("a.json", '{"lr_min": 1e-6, "patience": 30, "rate_limit_spikes": true}'),
        ("a.json", '{"adaptive_lr": {"lr_min": 1e-6, "patience": 30, "rate_limit_spikes": true}}'),
    ],
)
def test_settings_load_from_every_format(tmp_path: Path, name: str, text: str) -> None:
    settings = load_adaptive_lr_file(write(tmp_path, name, text))
    assert settings == {"lr_min": 1e-6, "patience": 30, "rate_limit_spikes": True}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "patiense = 3", ["patiense", "did you mean 'patience'"]),
        ("a.toml", "zzz = 3", ["zzz", "known keys", "window_size"]),
        ("a.toml", "patience = 3.5", ["patience", "3.5", "whole number"]),
        ("a.toml", "patience = true", ["patience", "whole number"]),
        ("a.json", '{"lr_min": "1e-6"}', ["lr_min", "'1e-6'", "a number"]),
        ("a.yaml", "lr_min: small", ["lr_min", "'small'", "a number"]),
        ("a.yaml", "lr_min: null", ["lr_min", "None"]),
        ("a.yaml", "rate_limit_spikes: 1", ["rate_limit_spikes", "true or false"]),
        ("a.yaml", "adaptive_lr: {patience: 3}\nother: 1", ["adaptive_lr"]),
        ("a.yaml", "- 1", ["[1]"]),
        ("a.yaml", "a: [", ["not valid yaml"]),
        ("a.json", "{", ["not valid json"]),
        ("a.toml", "patience", ["not valid toml"]),
        ("a.ini", "patience = 3", ["'.ini'", ".toml"]),
        ("a.toml", "lr_min = 1e-2\nlr_max = 1e-3", ["lr_min = 0.01", "lr_max = 0.001"]),
        ("a.toml", "spike_threshold = 0.5", ["spike_threshold = 0.5", "> 1"]),
        ("a.toml", "lr_max = nan", ["lr_max = nan", "finite"]),
        ("a.json", '{"lr_max": 1' + 400 * "0" + "}", ["too large"]),
    ],
)
def test_a_bad_file_is_one_sentence_naming_file_and_key(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(UserError) as error:
        settings_of(path, 1e-3, 1000, use_moe=False)
    message = str(error.value)
    assert "\n" not in message
    for word in [str(path), *words]:
        assert word in message


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.toml"):
        load_adaptive_lr_file(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_adaptive_lr_file(tmp_path / "binary.toml")


def test_a_partial_file_overrides_only_what_it_names(tmp_path: Path) -> None:
    path = write(tmp_path, "a.toml", "patience = 99")
    derived = AdaptiveLRConfig.from_base_lr(3e-4, 400)
    assert settings_of(path, 3e-4, 400, use_moe=False) == AdaptiveLRConfig(**{**vars_of(derived), "patience": 99})
    assert settings_of(write(tmp_path, "b.yaml", ""), 3e-4, 400, use_moe=False) == derived
    assert settings_of(None, 3e-4, 400, use_moe=True) == AdaptiveLRConfig.from_base_lr(3e-4, 400, True)


@pytest.mark.parametrize("name", ["adaptive_lr.toml", "adaptive_lr.yaml"])
def test_the_example_files_hold_the_defaults(name: str) -> None:
    path = EXAMPLES / name
    assert load_adaptive_lr_file(path)
    assert settings_of(path, 3e-4, 400, use_moe=False) == AdaptiveLRConfig.from_base_lr(3e-4, 400)


@pytest.mark.parametrize("name", ["adaptive_lr.toml", "adaptive_lr.yaml"])
def test_the_example_files_with_every_line_switched_on_are_the_plain_config(tmp_path: Path, name: str) -> None:
    lines = (EXAMPLES / name).read_text().splitlines()
    names = tuple(f"# {key}{sign}" for key in vars_of(AdaptiveLRConfig()) for sign in (" = ", ": "))
    on = [line.replace("# ", "", 1) if line.strip().startswith(names) else line for line in lines]
    loaded = load_adaptive_lr_file(write(tmp_path, name, "\n".join(on)))
    assert loaded == vars_of(AdaptiveLRConfig())


def settings_of(path: Path | None, lr: float, steps: int, use_moe: bool) -> AdaptiveLRConfig:
    """The scheduler's settings of a run under the plain rules."""
    file = str(path) if path is not None else None
    config = TrainingConfig(
        lr=lr, steps=steps, use_moe=use_moe, adaptive_lr_config=file, adaptive_lr_profile="rules"
    )  # fmt: skip
    return make_plan(Given(auto_lr_config(config), steps, lr, use_moe)).settings


def vars_of(config: AdaptiveLRConfig) -> dict[str, Any]:
    return {key: value for key, value in vars(config).items() if not key.startswith("_")}
