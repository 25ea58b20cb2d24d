"""The settings file of a run: what loads, what is refused and how, and that nothing is lost on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st

from aios.cli.app import app
from aios.errors import UserError
from aios.settings.config import TrainingConfig
from aios.settings.config_file import load_config_file, save_config_file
from parsed_flags import parse_config
from training_process import read_log, run_aios, train

COMMAND = typer.main.get_command(app).commands["hrm-hf"].commands["train"]
SUFFIXES = (".toml", ".yaml", ".yml", ".json")

numbers = st.floats(min_value=1e-30, max_value=9)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "lr": numbers,
    "auto_adjust_lr": st.booleans(),
    "adaptive_lr_profile": st.sampled_from(["auto", "rules"]),
    "anneal_fraction": st.floats(0, 1),
    "warmup_steps": st.integers(0, 9),
    "on_overfit": st.sampled_from(["finish", "keep-best", "ignore"]),
    "dataset_file": words,
    "model": words,
    "steps": st.integers(10, 2**53),
    "optimizer": st.sampled_from(["adamw", "muon"]),
    "weight_decay": st.floats(0, 0.1),
    "amp": st.booleans(),
    "preset": st.sampled_from(["tiny", "small", "base"]),
    "cuda_ids": st.just("1"),
    "bundle_dir": words,
    "brain_name": st.sampled_from(["a", "on", "null", "1e3", "0x1", "2024-01-01", "#", "ä 🜁"]),
    "resume": st.booleans(),
}
configs = st.fixed_dictionaries({}, optional=FIELDS).map(lambda given: TrainingConfig(**given))


@settings(deadline=None)
@given(config=configs, suffix=st.sampled_from(SUFFIXES))
def test_what_was_saved_is_what_loads(tmp_path_factory: pytest.TempPathFactory, config: Any, suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    save_config_file(config, path)
    loaded = load_config_file(path)
    assert TrainingConfig(**loaded) == config
    assert all(value != getattr(TrainingConfig(), name) for name, value in loaded.items())


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "lr = 1\nmax-seq-len = 64\nuse_moe = true\n"),
        ("a.yaml", "lr: 1\nmax_seq_len: 64\nuse-moe: true\n"),
        ("a.YML", "lr: 1e0\nmax_seq_len: 64\nuse-moe: yes\ndataset_file: null\n"),
        ("a.json", '{"lr": 1.0, "max-seq-len": 64, "use_moe": true, "cuda_ids": null}'),
    ],
)
def test_every_format_loads_with_underscores_or_dashes(tmp_path: Path, name: str, text: str) -> None:
    for mark in ("", "\ufeff"):  # as some editors begin a file
        loaded = load_config_file(write(tmp_path, name, mark + text))
        assert TrainingConfig(**loaded) == TrainingConfig(lr=1.0, max_seq_len=64, use_moe=True)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.toml", "stepz = 3", ["unknown key 'stepz'", "did you mean 'steps'"]),
        ("a.toml", "max-sec-len = 3", ["'max-sec-len'", "did you mean 'max_seq_len'"]),
        ("a.json", '{"q": 1}', ["unknown key 'q'", "known keys: dataset_file, "]),
        ("a.json", '{"max-seq-len": 8, "max_seq_len": 9}', ["'max_seq_len' is there twice"]),
        ("a.toml", "steps = 3.5", ["steps = 3.5", "whole number"]),
        ("a.toml", "steps = true", ["steps = True", "whole number"]),
        ("a.toml", "use_moe = 1", ["use_moe = 1", "true or false"]),
        ("a.toml", 'lr = "fast"', ["lr = 'fast'", "a number"]),
        ("a.toml", "lr = true", ["lr = True", "a number"]),
        ("a.json", '{"steps": null}', ["steps = None", "whole number"]),
        ("a.yaml", "brain_name: 2024-01-01", ["brain_name = ", "text in quotes"]),
        ("a.yaml", "cuda_ids: 1", ["cuda_ids = 1", "text in quotes"]),
        ("a.yaml", "eval_segments: true", ["eval_segments = True has the wrong type; write a whole number"]),
        ("a.json", '{"lr": 1' + 400 * "0" + "}", ["lr = ", "too large a number"]),
        ("a.toml", 'preset = "huge"', ["preset = 'huge'", "tiny, small, base"]),
        ("a.yaml", "preset: [tiny]", ["preset = ['tiny']", "tiny, small, base"]),
        ("a.yaml", "- 1", ["[1]", "where settings belong"]),
        ("a.json", "{", ["not valid json"]),
        ("a.json", 60000 * "[", ["not valid json"]),
        ("a.ini", "", ["unknown suffix '.ini'", ".toml"]),
    ],
)
def test_bad_files_name_file_key_and_remedy(tmp_path: Path, name: str, text: str, words: list[str]) -> None:
    path = write(tmp_path, name, text)
    with pytest.raises(UserError) as caught:
        load_config_file(path)
    assert all(word in str(caught.value) for word in [str(path), *words])


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.toml: cannot be read"):
        load_config_file(tmp_path / "nowhere.toml")
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="not UTF-8"):
        load_config_file(tmp_path / "b.toml")


@pytest.mark.parametrize("place", ["no/such/folder.toml", "a.toml/x.json", "a.exe"])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    write(tmp_path, "a.toml", "")
    with pytest.raises(UserError, match=r"cannot be written|unknown suffix"):
        save_config_file(TrainingConfig(), tmp_path / place)
    assert [path.name for path in tmp_path.iterdir()] == ["a.toml"]


def test_text_that_is_no_utf8_leaves_the_old_file(tmp_path: Path) -> None:
    path = write(tmp_path, "a.toml", "steps = 7\n")
    with pytest.raises(UserError, match="UTF-8"):
        save_config_file(TrainingConfig(dataset_file="\udc80"), path)
    assert path.read_text() == "steps = 7\n"


def test_flags_win_over_the_file_even_with_the_default_value(tmp_path: Path) -> None:
    path = write(tmp_path, "a.toml", "steps = 50\nbatch-size = 2\nuse_moe = true\n")
    config = parse_config(COMMAND, [f"--config={path}", "--steps=600", "--no-use-moe"])
    assert config == TrainingConfig(steps=600, batch_size=2)


def test_a_run_takes_its_settings_from_a_file_and_so_does_its_resume(tmp_path: Path) -> None:
    path = write(tmp_path, "run.toml", "steps = 5\nseed = 3\nlr = 1e-3\n")
    train(tmp_path, f"--config={path}", "--seed=4")
    path.write_text("resume = true\nsteps = 9\nsave-every = 7\n")
    train(tmp_path, f"--config={path}", "--save-every=8")
    (first,), (second,) = (read_log(tmp_path / "brain", event) for event in ("run_start", "run_resumed"))
    assert (first["config"]["steps"], first["config"]["seed"], first["config"]["lr"]) == (5, 4, 1e-3)
    assert (second["config"]["steps"], second["config"]["seed"], second["config"]["save_every"]) == (9, 4, 8)


@pytest.mark.parametrize("command", ["train", "lr-find"])
def test_a_bad_file_is_one_sentence_and_exit_code_2(tmp_path: Path, command: str) -> None:
    path = write(tmp_path, "a.toml", "stepz = 5")
    done = run_aios("hrm-hf", command, f"--config={path}", f"--bundle-dir={tmp_path / 'brains'}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{path}: unknown key 'stepz'; did you mean 'steps'?" in done.stderr
    assert not (tmp_path / "brains").exists()


@pytest.mark.parametrize("text", ["[" * 60_000, "lr: " + "[{" * 40, "steps: 10\nmodel: " + "[" * 2000 + "]" * 2000])
def test_yaml_that_nests_without_end_is_refused_before_it_is_scanned(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="brackets within brackets, more than 50 deep"):
        load_config_file(write(tmp_path, "a.yaml", text))
