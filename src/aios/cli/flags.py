"""The command line of a training run, made from the fields of `TrainingConfig`."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from aios.cli.flag_help import HelpAllOption
from aios.settings.config import TrainingConfig, field_types
from aios.settings.config_file import load_config_file
from aios.settings.flag_values import allowed_types, flag_name

DebugOption = Annotated[bool, typer.Option("--debug", help="Show a traceback when it fails.")]
"""What every command has; `app` looks for it."""


def config_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a typer command one option per field of `TrainingConfig`, `--config` and `--help-all`, as `**flags`."""
    fields = (_parameter(f) for f in dataclasses.fields(TrainingConfig))
    return with_options(function, [*fields, _CONFIG_FILE, _HELP_ALL])


def with_options(function: Callable[..., None], options: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """Give a typer command `options`, received as its `**` parameter, behind its own required parameters."""
    signature = inspect.signature(function, eval_str=True).parameters.values()
    own = [p for p in signature if p.kind is not inspect.Parameter.VAR_KEYWORD]
    required = [p for p in own if p.default is inspect.Parameter.empty]
    ordered = [*required, *options, *(p for p in own if p not in required)]
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in ordered]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {p.name: p.annotation for p in parameters}
    return function


_CONFIG_FILE = inspect.Parameter(
    "config_file",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="FILE",
            help="Settings file (.toml, .yaml, .json) with flags' names as keys; flags given here win over it.",
        ),
    ],
)
_HELP_ALL = inspect.Parameter("help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAllOption)
_VALUE_KINDS: dict[type, str] = {int: "N", float: "NUMBER"}


def _parameter(f: dataclasses.Field[Any]) -> inspect.Parameter:
    kind = field_types()[f.name]
    flag = flag_name(f.name)
    types, _ = allowed_types(kind)
    is_bool = bool in types
    names = f"{flag}/--no-{flag[2:]}" if is_bool and f.metadata["on_off"] else flag
    option = typer.Option(
        names,
        metavar=f.metadata["value"] or next((_VALUE_KINDS[t] for t in types if t in _VALUE_KINDS), None),
        help=f.metadata["help"],
        rich_help_panel=f.metadata["panel"],
        show_default=f.default is not None and f.default is not False,
    )
    return inspect.Parameter(
        f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=Annotated[kind, option]
    )


def given_flags(context: typer.Context) -> dict[str, Any]:
    """The config fields that were given, as against left at their defaults: in the `--config` file or, winning over
    it, as flags.

    Raises:
        UserError: for a file that cannot be used.
    """
    path = context.params.get("config_file")
    names = {f.name for f in dataclasses.fields(TrainingConfig)}
    flags = {name: value for name, value in context.params.items() if name in names and _was_given(context, name)}
    return {**(load_config_file(path) if path is not None else {}), **flags}


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    # By name: typer brings its own copy of click in some versions, and with it another enum.
    return source is not None and source.name != "DEFAULT"
