"""`aios hrm-hf plot` and `aios hrm-hf lr-log`: what a training log tells, as a picture and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aios.errors import UserError
from aios.runs.brain import check_writable

if TYPE_CHECKING:
    from rich.table import Table

    from aios.run_view.events import Adjustment

FORMATS = (".png", ".svg", ".pdf", ".jpg", ".webp")
PICTURE_INCHES = (12.8, 8.0)
_PLAIN_WIDTH = 160
"""Columns of a table that goes into a file or a pipe."""


def plot(
    logs: Annotated[list[Path], typer.Argument(metavar="LOG...", help="Training logs, or folders of brains.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the picture goes; its ending says the format.")]
    = Path("run.png"),
    dark: Annotated[bool, typer.Option("--dark", help="Light on dark.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when it fails.")] = False,
) -> None:  # fmt: skip
    """Draw loss and learning rate of one run, or of several over each other, with a mark at each adjustment."""
    if output.suffix.lower() not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{output} has an ending that is no picture format; use one of {known} for --output.")
    if output.is_dir():
        raise UserError(f"{output} is a folder; give --output the name of a picture file.")
    check_writable(output.parent, "--output")
    # Imported late: matplotlib takes its time, and `aios --help` does not need it.
    from aios.run_view.reading import labels_of, read_history

    histories = [read_history(log) for log in logs]
    for log, history in zip(logs, histories, strict=True):
        if history.train_records == 0:
            raise UserError(f"{log} holds no training step yet, so there is nothing to draw; wait until the run has.")
    _save_picture(list(zip(labels_of(logs, histories), histories, strict=True)), output, dark)
    typer.echo(f"The picture is in {output}.")


def _save_picture(runs: Sequence[tuple[str, Any]], output: Path, dark: bool) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from aios.run_view.drawing import DARK, LIGHT, draw_run

    figure = Figure(figsize=PICTURE_INCHES, dpi=100)
    FigureCanvasAgg(figure)
    draw_run(figure, runs, DARK if dark else LIGHT)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output)


def lr_log(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="A training log, or the folder of a brain.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the table.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback when it fails.")] = False,
) -> None:
    """List the adjustments of the learning rate: when, what, and why."""
    from rich.console import Console

    from aios.run_view.reading import read_history

    history = read_history(log)
    adjustments = history.adjustments
    if as_json:
        for adjustment in adjustments:
            typer.echo(json.dumps(_plain(adjustment)))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, _PLAIN_WIDTH))
    if not adjustments:
        console.print(f"The learning rate was not adjusted in {history.step:,} steps.")
        return
    console.print(adjustment_table(adjustments, several=len({a.rank for a in adjustments}) > 1))
    if history.adjustment_count > len(adjustments):
        console.print(f"These are the newest {len(adjustments):,} of {history.adjustment_count:,} adjustments.")


def adjustment_table(adjustments: Sequence[Adjustment], several: bool) -> Table:
    """A row per adjustment, oldest first; `several` adds the worker."""
    from rich.table import Table
    from rich.text import Text

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


def _colored(adjustment: Adjustment) -> Any:
    from rich.text import Text

    grows = adjustment.new_lr > adjustment.old_lr
    brakes = adjustment.decision not in ("increase", "decrease", "gradient_increase")
    style = "green" if grows else "red" if brakes else "yellow"
    return Text(adjustment.decision.replace("_", " "), style=style)


def _plain(adjustment: Adjustment) -> dict[str, Any]:
    """As JSON can say it: null for NaN, and only keys that say something."""
    values = {k: None if isinstance(v, float) and v != v else v for k, v in asdict(adjustment).items()}
    return {k: v for k, v in values.items() if v is not None or k not in ("rank", "groups")}
