"""The form without a window: what its texts mean, and what it says when they mean nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from aios.gui.form import BUNDLED_TEXT, MAIN_FIELDS, RATE_FIELDS, FormModel, advanced_fields, check_on_disk, field_specs
from aios.gui.form_panel import MAIN_ROWS
from aios.gui.wording import in_window_words, lr_wording
from aios.settings.config import TrainingConfig


def test_a_fresh_form_means_the_defaults_of_training() -> None:
    form = FormModel()
    assert form.values() == {}
    assert form.check().config == TrainingConfig()
    assert form.texts["dataset_file"] == BUNDLED_TEXT
    assert form.texts["auto_adjust_lr"] is True


def test_every_setting_but_those_of_a_resume_is_in_the_form_once() -> None:
    shown = [*MAIN_FIELDS, *RATE_FIELDS, *(name for names in advanced_fields().values() for name in names)]
    settings = {f.name for f in dataclasses.fields(TrainingConfig)}
    assert sorted(shown) == sorted(settings - {"resume", "adaptive_lr_reset_state"})
    assert sorted(name for row in MAIN_ROWS for name in row) == sorted(MAIN_FIELDS)
    assert all(spec.label and spec.help for spec in field_specs().values())


def test_settings_come_back_as_they_went_in() -> None:
    values = {
        "steps": 80, "lr": 0.00123456789, "use_moe": True, "amp": False, "preset": "small", "anneal_fraction": 0.5,
        "brain_name": "a-b", "dataset_file": "/data/x.txt", "ddp": True, "world_size": 2,
    }  # fmt: skip
    form = FormModel(values)
    assert form.values() == values
    assert form.check().config == TrainingConfig(**values)


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("steps", "many", "whole number"),
        ("steps", "", "“Steps” is empty"),
        ("steps", "0", "at least 1"),
        ("batch_size", "2.5", "whole number"),
        ("lr", "-1", "positive number"),
        ("lr", "nan", "positive number"),
        ("brain_name", "a/b", "plain name"),
        ("brain_name", "", "plain name"),
        ("num_heads", "7", "attention heads"),
        ("warmup_steps", "601", "“Steps”"),
    ],
)
def test_a_bad_field_is_told_beneath_that_field_in_the_words_of_the_window(field: str, text: str, says: str) -> None:
    form = FormModel()
    form.texts[field] = text
    check = form.check()
    assert check.config is None
    assert list(check.problems) == [field]
    assert says in check.problems[field]
    assert "--" not in check.problems[field]
    assert check.reason is not None


def test_all_bad_fields_are_told_at_once() -> None:
    form = FormModel()
    form.texts.update(steps="x", batch_size="0", lr="fast")
    assert set(form.check().problems) == {"steps", "batch_size", "lr"}


def test_fields_without_effect_are_left_out(tmp_path: Path) -> None:
    form = FormModel({"adaptive_lr_profile": "rules", "adaptive_lr_config": "rates.toml"})
    form.texts["auto_adjust_lr"] = False
    assert form.values() == {"auto_adjust_lr": False}


def test_files_and_folders_are_checked(tmp_path: Path, psalms: Path) -> None:
    good = {"dataset_file": str(psalms), "bundle_dir": str(tmp_path)}
    assert check_on_disk(good).config == TrainingConfig(**good)
    missing = check_on_disk(good | {"dataset_file": str(tmp_path / "no.txt")})
    assert "does not exist" in missing.problems["dataset_file"]
    rates = check_on_disk(good | {"adaptive_lr_config": str(tmp_path / "rates.ini")})
    assert "rates.ini" in rates.problems["adaptive_lr_config"]
    blocked = check_on_disk(good | {"bundle_dir": str(psalms)})
    assert "nothing can be saved" in blocked.problems["bundle_dir"]


def test_damage_in_the_first_pages_of_a_text_is_its_fields_problem(tmp_path: Path) -> None:
    rows = tmp_path / "notes.jsonl"
    rows.write_text('{"text": "In the beginning"}\n' * 4 + '{"txet": "God"}\n', encoding="utf-8")
    check = check_on_disk({"bundle_dir": str(tmp_path), "dataset_file": str(rows)})
    assert check.problems["dataset_file"].startswith("Line 5 of the dataset file")
    assert check.config is None


def test_a_brain_that_is_there_is_not_trained_over(tmp_path: Path, psalms: Path) -> None:
    (tmp_path / "old" / "checkpoints" / "step-5").mkdir(parents=True)
    check = check_on_disk({"bundle_dir": str(tmp_path), "brain_name": "old"})
    assert "already holds a trained brain" in check.problems["brain_name"]


def test_the_learning_rate_says_what_it_is() -> None:
    assert lr_wording(True, "auto")[0] == "Learning rate (starting point)"
    assert lr_wording(False, "auto")[0] == "Learning rate (fixed)"
    assert len({lr_wording(True, "auto"), lr_wording(True, "rules"), lr_wording(False, "auto")}) == 3


def test_sentences_of_the_command_line_lose_their_flags() -> None:
    assert in_window_words("--batch-size is 'x', but it must be a whole number.") == (
        "“Batch size” is 'x', but it must be a whole number."
    )
    assert in_window_words("no effect with --no-auto-adjust-lr") == "no effect with “Auto-adjust learning rate” off"
    assert in_window_words("see --unknown-thing") == "see --unknown-thing"
