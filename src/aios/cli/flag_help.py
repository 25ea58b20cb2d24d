"""`--help` of the commands that take a run's flags: examples, then the flags that matter; `--help-all` has them all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, NamedTuple

import typer
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer.core import TyperCommand

from aios.settings.config import PANELS, TrainingConfig

WIDEST = 100
"""Columns of a help page at most: longer lines are hard to read."""
_NAMES = 32
"""Columns for the names of flags: the longest fits whole, also in a terminal of 80 columns."""
_OTHER = "Other"
_ON_DEMAND = {f.name for f in dataclasses.fields(TrainingConfig) if not f.metadata["main"]} | {"debug"}


class Example(NamedTuple):
    """A command that works as it stands, and what it does."""

    command: str
    """As it is typed."""
    does: str
    """In a few words."""


class FlagsCommand(TyperCommand):
    """A command with more flags than a person reads: its help has examples, and groups in the order of the config."""

    examples: ClassVar[tuple[Example, ...]] = ()

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """What `--help` shows."""
        formatter.write(self.page(ctx, everything=False))

    def page(self, ctx: Any, everything: bool) -> str:
        """The help as text, as wide as the terminal; all flags, or those that matter."""
        console = Console(highlight=False)
        console.width = min(console.width, WIDEST)
        with console.capture() as written:
            console.print(Padding(Text(f"Usage: {ctx.command_path} [OPTIONS]", style="bold"), (1, 1, 0, 1)))
            console.print(Padding(Text(" ".join((self.help or "").split())), (1, 1, 0, 1)))
            console.print(Padding(_shown_examples(self.examples), (1, 1, 1, 1)))
            for title in (*PANELS, _OTHER):
                rows = [p for p in self.get_params(ctx) if _panel_of(p) == title]
                rows = [p for p in rows if everything or p.name not in _ON_DEMAND]
                if rows:
                    records = [record for p in rows if (record := p.get_help_record(ctx)) is not None]
                    console.print(Panel(_flag_table(records), title=title, title_align="left", border_style="dim"))
        return written.get()


def _show_everything(context: typer.Context, wanted: bool) -> None:
    if wanted and isinstance(context.command, FlagsCommand):
        typer.echo(context.command.page(context, everything=True), nl=False)
        raise typer.Exit


HelpAllOption = Annotated[
    bool,
    typer.Option("--help-all", callback=_show_everything, is_eager=True, help="Show all flags and exit."),
]


def _panel_of(parameter: Any) -> str:
    panel = getattr(parameter, "rich_help_panel", None)
    return panel if panel in PANELS else _OTHER


def _shown_examples(examples: Sequence[Example]) -> Group:
    lines = [Text("Examples", style="bold")]
    for example in examples:
        lines += [Text(f"  {example.command}", style="cyan"), Text(f"      {example.does}", style="dim")]
    return Group(*lines)


def _flag_table(records: Sequence[tuple[str, str]]) -> Table:
    """(names and kind of value, help) of each flag, none of them cut."""
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0), expand=True, pad_edge=False)
    table.add_column(style="cyan", width=_NAMES, overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for names, text in records:
        table.add_row("\n".join(_lines_of(names)), Text(" ".join(text.split())))
    return table


def _lines_of(names: str) -> list[str]:
    """`--flag KIND` on a line, or on two where it is too long for one; `--no-flag` on a line of its own."""
    lines: list[str] = []
    for name in names.split(" / "):
        flag, _, kind = name.partition(" ")
        lines += [name] if len(name) <= _NAMES else [flag, f"  {kind}"]
    return lines
