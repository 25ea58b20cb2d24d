"""What is shown as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from aios.run_view.events import Adjustment
from aios.run_view.reasons import Numbers, plain_reason
from aios.run_view.timeline import Decision

PLAIN_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""


def table_console() -> Console:
    """A console that tables fit on, whatever the output goes into."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def listing(headings: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of cells under (heading, whether it is of numbers); a first cell that is too long is broken, never cut."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for at, (heading, is_number) in enumerate(headings):
        justify: Literal["right", "left"] = "right" if is_number else "left"
        table.add_column(heading, justify=justify, no_wrap=at > 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def timeline_table(decisions: Sequence[Decision], several: bool, numbers: bool = True) -> Table:
    """A row per decision, in the order given: its sentence, and under it its `numbers`; `several` adds the worker."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), show_header=numbers)
    table.add_column("step", justify="right")
    if several:
        table.add_column("worker", justify="right")
    table.add_column("decision", no_wrap=True)
    table.add_column("what was done, and why", overflow="fold")
    for decision in decisions:
        worker = [str(decision.rank) if decision.rank is not None else "-"] if several else []
        said = Text(decision.sentence)
        told = Group(said, _number_table(decision.numbers)) if numbers and decision.numbers else said
        table.add_row(f"{decision.step:,}", *worker, Text(decision.label, style=_style(decision)), told)
    return table


def _number_table(numbers: Numbers) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in numbers:
        table.add_row(Text(f"  {name}", style="dim"), Text(value))
    return table


def adjustment_table(adjustments: Sequence[Adjustment]) -> Table:
    """Adjustments alone, which may be in no log: a row each, oldest first."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("step", justify="right")
    table.add_column("decision", no_wrap=True)
    for heading in ("old LR", "new LR", "change"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for a in adjustments:
        rates = [f"{a.old_lr:.3g}", f"{a.new_lr:.3g}", f"{a.change_pct:+.1f} %"]
        name = Text(a.decision.replace("_", " "), style=_adjustment_style(a))
        table.add_row(f"{a.step:,}", name, *rates, Text(plain_reason(a.reason)))
    return table


def _style(decision: Decision) -> str:
    if decision.adjustment is not None:
        return _adjustment_style(decision.adjustment)
    return _STYLES.get(decision.kind, "default")


def _adjustment_style(adjustment: Adjustment) -> str:
    brakes = adjustment.decision not in ("increase", "decrease", "gradient_increase")
    return "green" if adjustment.new_lr > adjustment.old_lr else "red" if brakes else "yellow"


_STYLES = {
    **dict.fromkeys(("climb", "race", "search", "trial"), "cyan"),
    **dict.fromkeys(("trouble", "overfitting", "not learning"), "red"),
    "warm-up": "yellow",
    "anneal": "magenta",
    "end": "bold",
}
