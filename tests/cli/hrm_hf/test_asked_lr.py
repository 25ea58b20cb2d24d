"""A `--lr` that is not what the run trains at, or that nothing trains at, is told of, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aios.cli.hrm_hf.lr_plan import unused_lr
from aios.settings.config import TrainingConfig
from training_process import read_log, train, train_records

RULES = {"adaptive_lr_profile": "rules"}


@pytest.mark.parametrize(
    ("given", "resumed", "why"),
    [
        ({"lr": 0.5}, None, "a search finds the rate"),
        ({}, None, None),
        ({"lr": 0.5, "steps": 79}, None, None),  # too short for a search
        ({"lr": 0.5, **RULES}, None, None),
        ({"lr": 0.5, "auto_adjust_lr": False}, None, None),
        ({"lr": 0.5}, {"step": 0}, "a search finds the rate"),
        ({"lr": 0.5}, {"step": 9, "lr": 0.1}, "the resumed run goes on"),
        ({"lr": 0.5, **RULES}, {"step": 9, "lr": 0.1}, "the resumed run goes on"),
        ({"lr": 0.5}, {"step": 9, "lr": 0.5}, None),  # nothing new was asked for
        ({"lr": 0.5, "auto_adjust_lr": False}, {"step": 9, "lr": 0.1}, None),
        ({"lr": 0.5, **RULES, "adaptive_lr_reset_state": True}, {"step": 9, "lr": 0.1}, None),
    ],
)
def test_which_rate_wins_and_why(given: dict[str, Any], resumed: dict[str, Any] | None, why: str | None) -> None:
    state = None
    if resumed is not None:
        saved = TrainingConfig(lr=resumed.get("lr"), adaptive_lr_profile=given.get("adaptive_lr_profile", "auto"))
        state = {"step": resumed["step"], "config": saved.to_dict()}
    config = TrainingConfig(**given)
    searches = config.auto_adjust_lr and not given.keys() & RULES.keys() and (state is None or state["step"] == 0)
    said = unused_lr(config, state, searches)
    assert (said or "").startswith(why or "")
    assert (said is None) == (why is None)


def test_a_rate_that_no_model_trains_at_is_named_where_nothing_replaces_it(tmp_path: Path) -> None:
    done = train(tmp_path, "--lr=5", "--steps=2", "--no-auto-adjust-lr")
    (asked,) = read_log(tmp_path / "brain", "lr_asked")
    assert (asked["lr"], asked["used"]) == (5.0, True)
    assert "The learning rate asked for, 5, is used as it is: it is far above what models train at" in done.stdout


def test_a_fixed_rate_asked_for_after_an_anneal_is_trained_at(tmp_path: Path) -> None:
    train(tmp_path, "--steps=20", "--adaptive-lr-profile=auto")
    train(tmp_path, "--resume", "--steps=24", "--no-auto-adjust-lr", "--lr=1e-4")
    records = train_records(tmp_path / "brain")
    assert [records[step]["lr"] for step in (22, 23, 24)] == [1e-4] * 3


def test_a_run_that_forgets_rises_after_an_anneal_to_the_rate_asked_for(tmp_path: Path) -> None:
    train(tmp_path, "--steps=20", "--adaptive-lr-profile=auto")
    train(tmp_path, "--resume", "--steps=60", "--lr=3e-4", "--adaptive-lr-reset-state")
    *_, risen = read_log(tmp_path / "brain", "warmup_complete")
    assert (risen["step"], risen["lr"]) == (22, 3e-4)


def test_what_is_said_of_the_rate_on_resume_has_the_step_of_now(tmp_path: Path) -> None:
    train(tmp_path, "--steps=4")
    train(tmp_path, "--resume", "--steps=6", "--lr=1e-4")
    (asked,) = read_log(tmp_path / "brain", "lr_asked")
    assert (asked["step"], asked["used"]) == (4, False)
