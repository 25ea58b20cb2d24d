"""What a command line means to a command of `aios`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import typer
from typer.core import TyperCommand

from aios.cli.flags import given_flags
from aios.settings.config import TrainingConfig


def parse_config(command: TyperCommand, args: Sequence[str]) -> TrainingConfig:
    """The config that `args` mean to `command`; the inverse of `TrainingConfig.to_cli_args`."""
    context = cast(typer.Context, command.make_context(command.name, list(args)))
    return TrainingConfig(**given_flags(context))
