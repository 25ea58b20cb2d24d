"""The command line with all that its first use imports and builds, for a process that forks others to use it."""

from __future__ import annotations

from typer.core import TyperGroup

from aios.cli.app import command


def parse_once() -> None:
    """Parse `aios hrm-hf train` without flags, and do nothing with it."""
    of_hrm = command().commands["hrm-hf"]
    assert isinstance(of_hrm, TyperGroup), "it has commands"
    of_hrm.commands["train"].make_context("train", [])
