"""`--help` of `train` and `lr-find`: whole in 80 columns, the flags that matter first, with examples that work."""

from __future__ import annotations

import dataclasses

import pytest
import typer

from aios.cli.app import app
from aios.settings.config import PANELS, TrainingConfig, field_types
from aios.settings.flag_values import allowed_types
from parsed_flags import parse_config
from training_process import run_aios

FIELDS = dataclasses.fields(TrainingConfig)
COMMANDS = ("train", "lr-find")


@pytest.fixture(autouse=True)
def _terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def shown_by(*args: str) -> str:
    done = run_aios("hrm-hf", *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert "…" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    return done.stdout


def flags_in(page: str) -> set[str]:
    """The flags in the first column of the page's tables."""
    rows = (line[2:34] for line in page.splitlines() if line.startswith("│ -"))
    return {word for row in rows for word in row.split() if word.startswith("--")}


def flags_of(name: str) -> set[str]:
    field = next(f for f in FIELDS if f.name == name)
    dashed = name.replace("_", "-")
    is_bool = bool in allowed_types(field_types()[name])[0]
    return {f"--{dashed}", f"--no-{dashed}"} if is_bool and field.metadata["on_off"] else {f"--{dashed}"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_all_has_every_flag_whole_in_groups_in_order(command: str) -> None:
    page = shown_by(command, "--help-all")
    assert flags_in(page) >= set().union(*(flags_of(f.name) for f in FIELDS)) | {"--config", "--debug", "--help"}
    titles = [line[3:].split(" ─")[0] for line in page.splitlines() if line.startswith("╭")]
    assert titles == [*PANELS, "Other"]
    assert titles[:4] == ["Data", "Learning rate", "Schedule", "Model"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_then_the_dozen_flags_that_matter(command: str) -> None:
    page = shown_by(command, "--help")
    main = [f.name for f in FIELDS if f.metadata["main"]]
    own = {"--output"} if command == "lr-find" else set()
    assert flags_in(page) == set().union(*map(flags_of, main)) | {"--config", "--help", "--help-all"} | own
    assert len(main) + 2 == 12  # with --config and --help-all
    assert page.index("Examples") < page.index("─ Data ─")


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_mean_runs(command: str) -> None:
    examples = [line.split() for line in shown_by(command, "--help").splitlines() if line.startswith("   aios ")]
    assert len(examples) >= 2
    parser = typer.main.get_command(app).commands["hrm-hf"].commands[command]
    for words in examples:
        assert words[:3] == ["aios", "hrm-hf", command]
        config = parse_config(parser, words[3:])
        assert config.steps >= 600


def test_help_wins_over_what_is_wrong_beside_it() -> None:
    assert "--steps N" in shown_by("train", "--help-all", "--steps=many")
