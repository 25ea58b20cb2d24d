"""What is shown as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from aios.run_view.events import Adjustment

PLAIN_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""


def table_console() -> Console:
    """A console that tables fit on, whatever the output goes into."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    return console


def adjustment_table(adjustments: Sequence[Adjustment], several: bool) -> Table:
    """A row per adjustment, oldest first; `several` adds the worker."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("step", justify="right")
    if several:
        table.add_column("worker", justify="right")
    table.add_column("decision", no_wrap=True)
    for name in ("old LR", "new LR", "change"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("why", overflow="fold")
    for a in adjustments:
        worker = [str(a.rank) if a.rank is not None else "-"] if several else []
        rates = [f"{a.old_lr:.3g}", f"{a.new_lr:.3g}", f"{a.change_pct:+.1f} %"]
        table.add_row(f"{a.step:,}", *worker, _colored(a), *rates, Text(a.why))
    return table


def _colored(adjustment: Adjustment) -> Text:
    grows = adjustment.new_lr > adjustment.old_lr
    brakes = adjustment.decision not in ("increase", "decrease", "gradient_increase")
    style = "green" if grows else "red" if brakes else "yellow"
    return Text(adjustment.decision.replace("_", " "), style=style)
